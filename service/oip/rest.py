"""The protocol over HTTP: JSON, and its binary extension, in which tensors follow the JSON as bytes.

``Inference-Header-Content-Length`` is the length of the JSON when bytes follow; each tensor says its own in
``binary_data_size``. Encoded pictures in JSON are base64.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.body import read_body
from service.codec import Picture
from service.core import Service
from service.errors import InternalError, InvalidRequest, MethodNotAllowed, ServiceError, TooManyBytes, UnknownRoute
from service.frame import Options
from service.http_call import error_headers, timeout_seconds, unless_client_leaves
from service.oip import model, parameters, tensors
from service.oip.inference import Inferred, infer
from service.oip.tensors import Array, Tensor

PREFIX = "/v2"
HEADER_LENGTH = "inference-header-content-length"
OVERHEAD_BYTES = 64 * 1024  # everything in a request beside its pictures, as over gRPC
MAX_JSON_BYTES = 16 * 2**20  # JSON takes a multiple of its length in memory; larger tensors go in binary
MAX_JSON_ELEMENTS = 4 * 2**20

Value = StrictBool | StrictInt | StrictFloat | StrictStr
Endpoint = Callable[[Request], Awaitable[Response]]


class InputBody(BaseModel):
    """An input tensor."""

    model_config = ConfigDict(extra="forbid")

    name: str
    datatype: str
    shape: list[NonNegativeInt]
    parameters: dict[str, Value] = {}
    data: Any = None


class OutputBody(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid")

    name: str
    parameters: dict[str, Value] = {}


class InferBody(BaseModel):
    """The JSON of an inference request."""

    model_config = ConfigDict(extra="forbid")

    id: str = ""
    parameters: dict[str, Value] = {}
    inputs: list[InputBody]
    outputs: list[OutputBody] = []

    def in_binary(self, name: str) -> bool:
        """Tell whether an output is to be written as bytes."""
        default = parameters.flag("binary_data_output", self.parameters, False)
        wanted = {output.name: output.parameters for output in self.outputs}
        return parameters.flag("binary_data", wanted.get(name, {}), default)


def build(service: Service) -> Starlette:
    """Return the ASGI application below ``/v2``."""
    app = Starlette(
        routes=[
            Route("/", server_metadata),
            Route("/health/live", live),
            Route("/health/ready", ready),
            *_of_model("", model_metadata),
            *_of_model("/ready", model_ready),
            *_of_model("/config", model_config),
            *_of_model("/stats", model_statistics),
            *_of_model("/infer", model_infer, method="POST"),
        ],
        exception_handlers={
            ServiceError: answer_error,
            HTTPException: _answer_http_exception,
            Exception: _answer_fault,
        },
    )
    app.state.service = service
    return app


def _of_model(path: str, endpoint: Endpoint, method: str = "GET") -> list[Route]:
    async def checked(request: Request) -> Response:
        model.check(request.path_params["name"], request.path_params.get("version", ""))
        return await endpoint(request)

    return [
        Route(f"/models/{{name}}{version}{path}", checked, methods=[method]) for version in ("", "/versions/{version}")
    ]


async def server_metadata(request: Request) -> Response:
    """Name the server and its extensions."""
    return JSONResponse(model.server_metadata())


async def live(request: Request) -> Response:
    """Answer as long as the process does."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Answer 200 when new work is taken, else 503 with the reason."""
    _service(request).readiness.check()
    return JSONResponse({"ready": True})


async def model_ready(request: Request) -> Response:
    """Answer as ``ready``: there is one model."""
    _service(request).readiness.check()
    return JSONResponse({"name": model.NAME, "ready": True})


async def model_metadata(request: Request) -> Response:
    """Describe the tensors."""
    return JSONResponse(model.metadata(_service(request)))


async def model_config(request: Request) -> Response:
    """Describe the scheduling."""
    return JSONResponse(model.config(_service(request)))


async def model_statistics(request: Request) -> Response:
    """Count inferences and their time."""
    return JSONResponse({"model_stats": [model.statistics(_service(request))]})


async def model_infer(request: Request) -> Response:
    """Segment the pictures of a request."""
    service = _service(request)
    service.readiness.check()
    began = asyncio.get_running_loop().time()
    limit = timeout_seconds(request, service.settings.request_timeout_ms)
    raw = await _read(request, service.settings.max_image_bytes, began + limit)
    body, pictures = await asyncio.to_thread(_parsed, raw, request.headers.get(HEADER_LENGTH), service)
    asked = {name: value for name, value in body.parameters.items() if name != "binary_data_output"}
    options = parameters.options(asked, [output.name for output in body.outputs], service.settings.threshold)
    deadline = began + parameters.seconds(asked, limit)
    inferred = await unless_client_leaves(request, infer(service, pictures, options, deadline))
    return await asyncio.to_thread(_written, body, options, inferred)


async def _read(request: Request, max_bytes: int, deadline: float) -> bytes:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidRequest(f"content encoding {encoding} is not read here; send the body as it is")
    return await read_body(request, max_bytes + OVERHEAD_BYTES, max_bytes, deadline)


def _parsed(raw: bytes, header_length: str | None, service: Service) -> tuple[InferBody, list[Picture]]:
    if header_length is not None and not (header_length.isdecimal() and int(header_length) <= len(raw)):
        raise InvalidRequest(f"{HEADER_LENGTH} is {header_length!r}; send the length of the JSON in bytes")
    json_size = len(raw) if header_length is None else int(header_length)
    if json_size > MAX_JSON_BYTES:
        raise TooManyBytes(f"the JSON has more than {MAX_JSON_BYTES} bytes; send the tensors in binary")
    try:
        body = InferBody.model_validate_json(raw[:json_size])
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors())
        raise InvalidRequest(f"the JSON is wrong: {faults}") from error
    for output in body.outputs:
        parameters.refuse_unknown(output.parameters, ("binary_data",), f"output {output.name!r}")
    body.in_binary("")
    inputs = _inputs(body.inputs, memoryview(raw)[json_size:])
    return body, tensors.pictures(inputs, service.settings.max_queue_size)


def _inputs(bodies: Sequence[InputBody], binary: memoryview) -> list[Tensor]:
    inputs = []
    for body in bodies:
        parameters.refuse_unknown(body.parameters, ("binary_data_size",), f"input {body.name!r}")
        size = body.parameters.get("binary_data_size")
        if (size is None) == (body.data is None):
            raise InvalidRequest(f"input {body.name!r} must have either data or binary_data_size")
        if size is None:
            data = tensors.from_json(body.datatype, body.data)
        else:
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary):
                raise InvalidRequest(f"binary_data_size of {body.name!r} is {size!r}, but {len(binary)} bytes follow")
            data = tensors.from_raw(body.datatype, bytes(binary[:size]))
            binary = binary[size:]
        inputs.append(Tensor(body.name, body.datatype, tuple(body.shape), data))
    if len(binary):
        raise InvalidRequest(f"{len(binary)} bytes follow the tensors; see binary_data_size")
    return inputs


def _written(body: InferBody, options: Options, inferred: Inferred) -> Response:
    binary: list[bytes] = []
    outputs = [_output(name, array, body.in_binary(name), binary) for name, array in inferred.outputs.items()]
    answer = {"model_name": model.NAME, "model_version": model.VERSION, "id": body.id, "outputs": outputs}
    headers = {"x-model": inferred.model_id, "server-timing": inferred.times.server_timing()}
    response = JSONResponse(answer, headers=headers)
    if binary:
        headers[HEADER_LENGTH] = str(len(response.body))
        content = b"".join((response.body, *binary))
        return Response(content, media_type="application/octet-stream", headers=headers)
    return response


def _output(name: str, array: Array, in_binary: bool, binary: list[bytes]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": model.OUTPUTS[name], "shape": list(array.shape)}
    if in_binary:
        binary.append(tensors.to_raw(array))
        return described | {"parameters": {"binary_data_size": len(binary[-1])}}
    if array.size > MAX_JSON_ELEMENTS:
        raise InvalidRequest(f"output {name!r} has more than {MAX_JSON_ELEMENTS} elements; ask for it with binary_data")
    return described | {"data": array.ravel().tolist()}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error as the protocol has it, ``{"error": …}``."""
    assert isinstance(error, ServiceError)
    _service(request).metrics.rejected.labels(error.slug).inc()
    return JSONResponse({"error": error.detail}, error.status, headers=error_headers(error))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known: ServiceError = UnknownRoute(f"nothing of the protocol is served under {request.url.path}")
    if error.status_code == MethodNotAllowed.status:
        known = MethodNotAllowed(f"{request.method} is not served here")
    answer = await answer_error(request, known)
    answer.headers.update(error.headers or {})
    return answer


async def _answer_fault(request: Request, error: Exception) -> Response:
    return await answer_error(request, InternalError("the service failed; its log has the cause"))
