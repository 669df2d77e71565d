"""The reference of all routes as one page, made from the OpenAPI document: it needs no script, and opens at once."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from service.errors import ServiceError

JSON = "application/json"
PICTURE_FILES = {"image/jpeg": "frame.jpg", "application/zip": "frames.zip"}  # what an example sends
CODE = re.compile("`{1,2}([^`]+)`{1,2}")
RANGES = {"minimum": "at least", "maximum": "at most", "default": "default"}


def page(app: FastAPI, base_url: str) -> str:
    """Return the HTML of the reference; the examples call the service at ``base_url``, which ends with ``/``."""
    document = app.openapi()
    operations = [
        _operation(document, path, method) for path, methods in document["paths"].items() for method in methods
    ]
    return _template().render(
        document=document,
        groups=[(tag, list(same)) for tag, same in groupby(operations, key=lambda operation: operation["tags"][0])],
        errors=ServiceError.__subclasses__(),
        base_url=base_url,
    )


@functools.cache
def _template() -> Template:
    templates = Environment(
        loader=PackageLoader("service.rest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"prose": prose, "values": values, "pretty": pretty}
    return templates.get_template("reference.html")


def _operation(document: Mapping[str, Any], path: str, method: str) -> dict[str, Any]:
    """Return an operation with its path, method, anchor, the command that calls it, and its answers."""
    found: dict[str, Any] = document["paths"][path][method]
    answers = found["responses"]
    return {
        "path": path,
        "method": method.upper(),
        "anchor": re.sub(r"\W+", "-", f"{method}{path}").strip("-"),
        "tags": found["tags"],
        "summary": found["summary"],
        "description": found.get("description", ""),
        "parameters": found.get("parameters", []),
        "body": found.get("requestBody", {}).get("content", {}),
        "curl": [] if "101" in answers else list(_curl(found, path, method)),
        "answers": [(status, _answer(document, answer)) for status, answer in answers.items() if int(status) < 400],
        "faults": [status for status in answers if int(status) >= 400],
    }


def _answer(document: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    content = answer.get("content", {})
    return {
        "types": list(content),
        "examples": [media["example"] for media in content.values() if "example" in media][:1],
        "headers": [(name, document["components"]["headers"][name]) for name in answer.get("headers", ())],
    }


def _curl(operation: Mapping[str, Any], path: str, method: str) -> Iterator[str]:
    """Yield the parts of the command that calls an operation; the last one is the path."""
    if operation.get("security"):
        yield '-H "Authorization: Bearer $TOKEN"'
    content = operation.get("requestBody", {}).get("content", {})
    if JSON in content:
        yield f"-H 'Content-Type: {JSON}' -d '{json.dumps(content[JSON]['example'])}'"
    elif content:
        kind = next(iter(content))
        yield f"-H 'Content-Type: {kind}' --data-binary @{PICTURE_FILES[kind]}"
    elif method != "get":
        yield f"-X {method.upper()}"
    for parameter in operation.get("parameters", []):
        path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example", "")))
    yield path.removeprefix("/")


def prose(text: str) -> Markup:
    """Return a description as HTML: paragraphs, lines that begin a number or a list, and code in backticks."""
    paragraphs = (re.sub(r"\n\s+", " ", paragraph) for paragraph in text.strip().split("\n\n"))
    return Markup("").join(
        Markup("<p>{}</p>").format(Markup(CODE.sub(r"<code>\1</code>", str(escape(paragraph)))))
        for paragraph in paragraphs
    )


def values(schema: Mapping[str, Any]) -> str:
    """Return in words which values a parameter takes."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    parts = [", ".join(map(str, kind["enum"])) if "enum" in kind else kind["type"] for kind in kinds]
    limits = {**schema, **kinds[0]}
    parts += [f"{word} {json.dumps(limits[key])}" for key, word in RANGES.items() if limits.get(key) is not None]
    return "; ".join(parts)


def pretty(example: object) -> str:
    """Return an example as it is laid out: text as it is, all else as JSON."""
    return example if isinstance(example, str) else json.dumps(example, indent=2)
