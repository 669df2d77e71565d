"""The README's tables, made from the code that they describe: ``make readme`` rewrites them, a test compares them."""

import re
from pathlib import Path

from service.errors import ServiceError
from service.observability.metrics import Metrics
from service.settings import markdown_table

README = Path(__file__).parent.parent / "README.md"


def tables() -> dict[str, str]:
    """Return each table by the name of the marks that it stands between."""
    return {"errors": _errors(), "metrics": _metrics(), "settings": markdown_table()}


def with_tables(text: str) -> str:
    """Return the README's text with every table as it should be."""
    for name, table in tables().items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        text, found = re.subn(f"{start}.*?{end}", lambda _, t=table, s=start, e=end: f"{s}{t}\n{e}", text, flags=re.S)
        assert found == 1, f"the README has no marks for {name}"
    return text


def _errors() -> str:
    rows = ["| cause (`urn:pranet:error:`…) | HTTP | gRPC | when |", "|---|---|---|---|"]
    rows += [
        f"| `{cause.slug}` | {cause.status} | {cause.grpc.name} | {str(cause.__doc__).replace('``', '`')} |"
        for cause in ServiceError.__subclasses__()
    ]
    return "\n".join(rows)


def _metrics() -> str:
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    for family in Metrics().registry.collect():
        if family.name.startswith("pranet"):
            name = family.name + "_total" * (family.type == "counter")
            rows.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
