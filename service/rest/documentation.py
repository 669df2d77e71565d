"""The OpenAPI document: what FastAPI takes from the routes, and what it cannot see: headers, examples and ``/v2``."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from fastapi import FastAPI

from model.pictures.reading import READABLE
from service.http.middleware import open_paths
from service.oip import model
from service.oip.rest import PREFIX
from service.rest.archive_routes import NDJSON
from service.rest.errors import PROBLEM_TYPE

OPERATION: list[str | Enum] = ["Operation"]
STREAM = """Open a WebSocket here; this page cannot.

1. Send the configuration as text, such as `{"policy": "latest", "output": "json"}`.
2. Send each frame as one binary message: the length of its JSON (4 bytes, little-endian), the JSON, such as
   `{"frame_id": 1}`, and the picture.
3. Each frame has one answer of the same form, in order: length, JSON, and the mask if there is one.

With a token, offer the subprotocols `pranet.v1` and `pranet.bearer.TOKEN`."""
PROTOCOL_TAG = "Open Inference Protocol"
JSON, OCTETS = "application/json", "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"
ERRORS = ("400", "401", "404", "408", "413", "415", "422", "429", "500", "503", "504")
FOREIGN = "403"  # to a page of another site: it may send a GET, but nothing else
# 8 by 8 black pixels, PNG
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADElEQVR4nGNgoA4AAABIAAEuuDx+AAAAAElFTkSuQmCC"
WEIGHTS = {
    "model_id": "pranet-d1826398",
    "weights_sha256": "d1826398" + 56 * "0",
    "engine": "openvino",
    "device": "cpu",
    "precision": "fp32",
    "input_size": 352,
}
SEGMENTATION = {
    "request_id": "e24af4d5733d44f4899ef46210fdbbe5",
    "width": 616,
    "height": 529,
    "threshold": 0.5,
    "polyps": [
        {
            "polygon": [[369, 236], [368, 237], [370, 238]],
            "bounding_box": [280, 236, 212, 200],
            "area_fraction": 0.09,
            "centroid": [380.2, 330.7],
            "mean_probability": 0.97,
        }
    ],
    "rle": {"size": [529, 616], "counts": [148390, 12, 177462]},
    "presence": {"score": 0.998, "threshold": 0.5},
    "quality": [],
    "timings_ms": {"decode": 2.4, "preprocess": 1.9, "queue": 0.0, "infer": 80.0, "post": 0.8, "encode": 2.6},
    "batch_size": 1,
    "model": WEIGHTS,
}
EXAMPLES: dict[tuple[str, str], Any] = {  # of the JSON with which a route answers
    ("post", "/segment"): SEGMENTATION,
    ("get", "/livez"): {"status": "alive"},
    ("get", "/readyz"): {"status": "ready"},
    ("get", "/info"): {
        "service_version": "0.1.0",
        "model": WEIGHTS,
        "input_size": 352,
        "threshold": 0.5,
        "max_batch_size": 8,
        "max_queue_size": 64,
        "processes": 1,
        "max_image_bytes": 20_000_000,
        "max_image_pixels": 50_000_000,
    },
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
NDJSON_LINE = '{"index": 0, "name": "frame.jpg", "status": 200, "width": 616, "height": 529, "png": "iVBORw0KGgo…"}\n'
METRICS_TYPES = ("text/plain", "application/openmetrics-text")
METRICS = '# TYPE pranet_requests_total counter\npranet_requests_total{code="200",transport="rest"} 1.0\n'
PROBLEM = {"$ref": "#/components/schemas/Problem"}
FAULT = {
    "type": "urn:pranet:error:unsupported-image",
    "title": "Unsupported Media Type",
    "status": 415,
    "detail": f"the file is not a supported image; send {READABLE}",
    "request_id": "715192701e354854a91f2a5a862b4a04",
}
REQUEST_HEADERS = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your id for the request; the service makes one if there is none. It is logged.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:/+=@-]{1,128}$"},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "Milliseconds that you allow; at most the service's own limit.",
        "schema": {"type": "integer", "minimum": 1},
    },
]
ANSWER_HEADERS = {
    "X-Request-ID": ("The id of the request.", "e24af4d5733d44f4899ef46210fdbbe5"),
    "X-Model": ("The weights that made the answer.", "pranet-d1826398"),
    "X-Presence": ("Probability of a polyp, and from where on it means one; of one picture.", "0.998;threshold=0.5"),
    "X-Quality": ("Problems of the picture, with output=json and probability.", "too_dark, blurred"),
    "Server-Timing": ("Milliseconds of each stage.", "decode;dur=2.4, infer;dur=80.0, total;dur=88.0"),
    "X-Left-Out": ("Attributes that a DICOM Segmentation could not copy.", "PatientBirthDate"),
    "X-Pictures": ("Number of pictures in the archive.", "12"),
    "Retry-After": ("Seconds after which to try again.", "1"),
    HEADER_LENGTH: ("Bytes of the JSON, which tensors in binary follow.", "271"),
}
HEADERS_OF = {
    ("post", "/segment"): ("X-Request-ID", "X-Model", "X-Presence", "X-Quality", "X-Left-Out", "Server-Timing"),
    ("post", "/segment/batch"): ("X-Request-ID", "X-Pictures"),
}
TENSOR = {"name": model.INPUT, "datatype": "BYTES", "shape": [1, 1]}
MASK = {"name": "mask", "datatype": "UINT8", "shape": [1, 8, 8]}
INFERENCE = {"inputs": [{**TENSOR, "data": [PICTURE]}], "outputs": [{"name": "mask"}]}
INFERRED = {"model_name": model.NAME, "model_version": model.VERSION, "id": "", "outputs": [{**MASK, "data": [0] * 64}]}
READY = {"name": model.NAME, "ready": True}
STATISTICS = {"model_stats": [{"name": model.NAME, "version": model.VERSION, "inference_count": 1}]}
METADATA = {
    "name": model.NAME,
    "versions": [model.VERSION],
    "platform": "openvino",
    "inputs": [{**TENSOR, "shape": [-1, 1]}],
    "outputs": [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}],
}
SERVER_ROUTES: dict[str, tuple[str, Any]] = {  # GET, below the prefix: summary and example
    "": (
        "Name, version and extensions of the server",
        {"name": model.SERVER, "version": "0.1.0", "extensions": list(model.EXTENSIONS)},
    ),
    "/health/live": ("Liveness: the process answers", {"live": True}),
    "/health/ready": ("Readiness: new work is accepted", {"ready": True}),
    "/models/stats": ("Counts and durations of inferences", STATISTICS),
}
MODEL_ROUTES: dict[str, tuple[str, Any]] = {  # GET, below the model's path
    "": ("Inputs and outputs of the model", METADATA),
    "/ready": ("Readiness of the model", READY),
    "/config": ("Batching configuration of the model", {"name": model.NAME, "max_batch_size": 64}),
    "/stats": ("Counts and durations of inferences", STATISTICS),
}
INDEX = [{"name": model.NAME, "version": model.VERSION, "state": "READY", "reason": ""}]


class Documented(FastAPI):
    """An application whose OpenAPI document also has headers, examples and the Open Inference Protocol."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, which is built on first use."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["headers"] = {
                name: {"description": text, "schema": {"type": "string"}, "example": example}
                for name, (text, example) in ANSWER_HEADERS.items()
            }
            _add_examples_and_headers(document["paths"])
            document["paths"].update(_protocol(security=document["paths"]["/info"]["get"].get("security")))
            is_open = open_paths(public_metrics=self.state.service.settings.public_metrics)
            for path in is_open & document["paths"].keys():
                document["paths"][path]["get"].pop("security", None)
        return super().openapi()


def _add_examples_and_headers(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        for method, operation in operations.items():
            if method == "post":
                operation.setdefault("parameters", []).extend(REQUEST_HEADERS)
            for status, answer in operation["responses"].items():
                names = HEADERS_OF.get((method, path), ("X-Request-ID",)) if status == "200" else ("X-Request-ID",)
                names += ("Retry-After",) if status in ("429", "503") else ()
                if int(status) >= 400:
                    answer["content"] = {PROBLEM_TYPE: {"schema": PROBLEM, "example": FAULT}}
                answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
            if example := EXAMPLES.get((method, path)):
                operation["responses"]["200"]["content"][JSON]["example"] = example
    paths["/segment/batch"]["post"]["responses"]["200"]["content"][NDJSON]["example"] = NDJSON_LINE
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {
        kind: {"schema": {"type": "string"}, "example": METRICS} for kind in METRICS_TYPES
    }


def _protocol(security: Any) -> dict[str, Any]:
    """Return the paths below ``/v2``; ``security`` is that of every operation, None without tokens."""
    paths = {path: {method: _operation(*described)} for path, method, *described in _routes()}
    for path, operations in paths.items():
        for operation in operations.values():
            operation["parameters"] = [_parameter(name) for name in ("name", "version") if f"{{{name}}}" in path]
            if security is not None:
                operation["security"] = security
        if path.endswith("/infer"):
            _add_binary(operations["post"])
    return paths


def _add_binary(operation: dict[str, Any]) -> None:
    """Add the bodies of an inference that have tensors in binary after their JSON."""
    text, example = ANSWER_HEADERS[HEADER_LENGTH]
    header = {"description": text, "schema": {"type": "integer", "minimum": 0}, "example": example}
    operation["parameters"].append({"name": HEADER_LENGTH, "in": "header", **header})
    answer = operation["responses"]["200"]
    for content in (operation["requestBody"]["content"], answer["content"]):
        content[OCTETS] = BINARY
    answer["headers"] = {HEADER_LENGTH: {"$ref": f"#/components/headers/{HEADER_LENGTH}"}}


def _routes() -> Iterator[tuple[str, str, str, Any, Any]]:
    """Yield path, method, summary, example of the answer and example of the body, None for no body."""
    for path, (summary, example) in SERVER_ROUTES.items():
        yield PREFIX + path, "get", summary, example, None
    yield f"{PREFIX}/repository/index", "post", "State of every model", INDEX, {"ready": True}
    for version in ("", "/versions/{version}"):
        base = f"{PREFIX}/models/{{name}}{version}"
        for path, (summary, example) in MODEL_ROUTES.items():
            yield base + path, "get", summary, example, None
        yield f"{base}/infer", "post", "Segment the pictures of a request", INFERRED, INFERENCE


def _operation(summary: str, example: Any, body: Any) -> dict[str, Any]:
    kind = "array" if isinstance(example, list) else "object"
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    errors = ERRORS if body is None else sorted([*ERRORS, FOREIGN])
    operation: dict[str, Any] = {
        "tags": [PROTOCOL_TAG],
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {JSON: {"schema": {"type": kind}, "example": example}}},
            **{
                status: {"description": "Error", "content": {JSON: {"schema": error, "example": {"error": "…"}}}}
                for status in errors
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"content": {JSON: {"schema": {"type": "object"}, "example": body}}}
    return operation


def _parameter(name: str) -> dict[str, Any]:
    only = {"name": model.NAME, "version": model.VERSION}[name]
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [only]}, "example": only}
