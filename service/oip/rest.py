"""The routes of the protocol over HTTP; ``rest_messages`` parses and writes their bodies."""

import asyncio
import functools
from collections.abc import Awaitable, Callable

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from pranet_client.pictures import Picture
from service.calls import Call
from service.errors import InvalidParameter, InvalidRequest, TooManyBytes, UnknownRoute
from service.frames.frame import Segmentation
from service.http.request import call_of, read_body
from service.oip import model, parameters
from service.oip.inference import Inferred, check_sizes, infer
from service.oip.rest_messages import HEADER_LENGTH, MAX_JSON_ELEMENTS, IndexBody, InferBody, check_binary, parse, write
from service.runtime import Service
from service.settings import MESSAGE_LIMIT
from service.validation import describe_errors, shown

PREFIX = "/v2"
INDEX = f"{PREFIX}/repository/index"
MAX_INDEX_BYTES = 4096
Endpoint = Callable[[Request], Awaitable[Response]]


def build(service: Service) -> Router:
    """Return the routes below ``/v2``; the application that mounts them encodes their errors."""
    routes = [
        Route("/", server_metadata),
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/models/stats", model_statistics),
        Route(INDEX.removeprefix(PREFIX), repository_index, methods=["POST"]),
        *_unsupported(),
        *_of_model("", model_metadata),
        *_of_model("/ready", model_ready),
        *_of_model("/config", model_config),
        *_of_model("/stats", model_statistics),
        *_of_model("/infer", model_infer, method="POST"),
    ]
    return Router(routes, redirect_slashes=False)


def is_below(path: str) -> bool:
    """Tell whether a path belongs to the protocol."""
    return f"{path}/".startswith(f"{PREFIX}/")


def _of_model(path: str, endpoint: Endpoint, method: str = "GET") -> list[Route]:
    async def checked(request: Request) -> Response:
        model.check(request.path_params["name"], request.path_params.get("version", ""))
        return await endpoint(request)

    return [
        Route(f"/models/{{name}}{version}{path}", checked, methods=[method]) for version in ("", "/versions/{version}")
    ]


def _unsupported() -> list[Route]:
    def route(path: str, what: str) -> Route:
        async def refuse(request: Request) -> Response:
            raise UnknownRoute(model.refusal(what))

        return Route(path, refuse, methods=["GET", "POST"])

    found = {f"/{path}{rest}": what for path, (what, _) in model.UNSUPPORTED.items() for rest in ("", "/{rest:path}")}
    of_model = {f"/models/{{name}}{path}": what for path, what in found.items() if path.startswith("/trace")}
    return [route(path, what) for path, what in (found | of_model).items()]


async def server_metadata(request: Request) -> Response:
    """Return the server's name, version and extensions."""
    return JSONResponse(model.server_metadata())


async def live(request: Request) -> Response:
    """Answer 200 as long as the process runs."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Answer 200 if the service accepts new work, otherwise 503 with the reason."""
    _service(request).readiness.check_service()
    return JSONResponse({"ready": True})


async def model_ready(request: Request) -> Response:
    """Answer like ``ready``, since there is only one model."""
    _service(request).readiness.check_service()
    return JSONResponse({"name": model.NAME, "ready": True})


async def model_metadata(request: Request) -> Response:
    """Return the model's input and output tensors."""
    return JSONResponse(model.metadata(_service(request)))


async def model_config(request: Request) -> Response:
    """Return the model's batching configuration."""
    return JSONResponse(model.config(_service(request)))


async def model_statistics(request: Request) -> Response:
    """Return counts and durations of inferences."""
    return JSONResponse({"model_stats": [await model.statistics(_service(request))]})


async def repository_index(request: Request) -> Response:
    """Return the state of every model; the body ``{"ready": true}`` asks for those only that are ready."""
    too_many = functools.partial(TooManyBytes, f"the body has more than {MAX_INDEX_BYTES} bytes; send only ready")
    raw = await read_body(request, MAX_INDEX_BYTES, call_of(request).deadline, too_many)
    try:
        asked = IndexBody.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise InvalidRequest(f"the JSON of the request: {describe_errors(error.errors(), IndexBody)}") from error
    return JSONResponse(model.index(_service(request).readiness.service_ready, asked.ready))


async def model_infer(request: Request) -> Response:
    """Segment the pictures of a request."""
    for name in request.query_params:
        raise InvalidParameter(f"the query names {shown(name)}; send it in the parameters of the JSON")
    service = _service(request)
    most, call = service.settings.max_message_bytes, call_of(request)
    told = f"the request has more than {most} bytes ({MESSAGE_LIMIT}); send fewer or smaller pictures"
    too_many = functools.partial(TooManyBytes, told)
    raw = await read_body(request, most, call.deadline, too_many)
    lengths = [*dict.fromkeys(request.headers.getlist(HEADER_LENGTH))]
    answering = _inferred(raw, ", ".join(lengths) if lengths else None, service, call)
    return await asyncio.ensure_future(answering)  # a separate task resumes without waking the coroutines around it


async def _inferred(raw: bytes, header_length: str | None, service: Service, call: Call) -> Response:
    settings = service.settings
    body, pictures = await asyncio.to_thread(_read, raw, header_length, service)
    seconds = parameters.seconds(body.parameters, settings.request_timeout_ms / 1e3)
    options = parameters.options(body.parameters, [output.name for output in body.outputs], settings.threshold)
    frames = await infer(service.segmenter, pictures, options, call.set_deadline(seconds))
    return await asyncio.to_thread(_written, body, frames)


def _read(raw: bytes, header_length: str | None, service: Service) -> tuple[InferBody, list[Picture]]:
    body, pictures = parse(raw, header_length, service.max_queue_size)
    pixels = check_sizes(pictures, service.settings.max_image_bytes, service.settings.max_image_pixels)
    if pixels > MAX_JSON_ELEMENTS:
        check_binary(body, pixels)
    return body, pictures


def _written(body: InferBody, frames: list[Segmentation]) -> Response:
    inferred = Inferred.of(frames)
    outputs, binary = write(body, inferred.outputs)
    answer = {"model_name": model.NAME, "model_version": model.VERSION, "id": body.id, "outputs": outputs}
    headers = {"x-model": inferred.model_id, "server-timing": inferred.server_timing}
    described = to_json(answer)  # holds the interpreter for a seventh of the time of ``json``: 0.2 s for Full HD
    if not binary:
        return Response(described, media_type="application/json", headers=headers)
    headers[HEADER_LENGTH] = str(len(described))
    return Response(b"".join((described, *binary)), media_type="application/octet-stream", headers=headers)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
