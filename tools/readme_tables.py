"""Generates the tables in README.md and docs/ from the code: ``make readme`` writes them, and a test compares them."""

import re
from pathlib import Path

from service.configuration import markdown_table
from service.errors import ServiceError
from service.observability.metrics import Metrics

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def tables() -> dict[str, str]:
    """Return each table by the name in the comments around it."""
    return {"errors": _errors(), "metrics": _metrics(), "settings": markdown_table()}


def with_tables(text: str) -> str:
    """Return the text of a page with its tables up to date."""
    for name, table in tables().items():
        start, end = marks(name)
        pattern = f"{re.escape(start)}\n.*?{re.escape(end)}"
        text = re.sub(pattern, lambda _, s=start, t=table, e=end: f"{s}\n{t}\n{e}", text, flags=re.DOTALL)
    return text


def marks(name: str) -> tuple[str, str]:
    """Return the comments before and after a table."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


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
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
