"""The REST routes, such as ``POST /segment``; they only translate between HTTP and the data path."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.answers import ModelBody, SegmentationBody
from service.batching.queue import Priority
from service.calls import Call
from service.dicom.availability import MEDIA_TYPE as DICOM_TYPE
from service.dicom.detection import is_object
from service.errors import ForeignOrigin, InvalidParameter, UpgradeRequired
from service.frames.codec import STARTS
from service.frames.frame import Frame, Options, Output, Segmentation
from service.http.accept import accept_of, by_preference, negotiated, preferred
from service.http.form import Fields
from service.http.middleware import HANDSHAKE, REST, TIMEOUT_HEADER, HttpCalls, normalised
from service.http.request import accepts_anything, call_of, checked_call, content_type, read_image
from service.oip import rest as oip
from service.oip.rest_messages import HEADER_LENGTH
from service.options import FrameOptions, with_fields
from service.rest import archive_routes, errors, websocket
from service.rest import dicom_routes as dicom
from service.rest.archive_routes import JSON_TYPE, PNG_TYPE
from service.rest.documentation import OPERATION, STREAM, Documented
from service.rest.errors import PROBLEM_TYPE
from service.rest.pages import add_pages
from service.rest.requests import (
    ARCHIVE_ANSWERS,
    ARCHIVE_BODY,
    OUTPUTS,
    REQUEST_BODY,
    SEGMENT_ANSWERS,
    SegmentQuery,
)
from service.rest.schemas import Info, Problem
from service.runtime import Service

CORS_REQUEST_HEADERS = (
    "authorization",
    "content-encoding",
    "content-type",
    HEADER_LENGTH,
    TIMEOUT_HEADER,
    "x-request-id",
    "traceparent",
)
CORS_ANSWER_HEADERS = (
    "x-request-id",
    "x-model",
    "x-presence",
    "x-quality",
    "server-timing",
    "retry-after",
    "x-pictures",
    HEADER_LENGTH,
    dicom.LEFT_OUT,
)
# FastAPI's own telemetry would send paths, queries and exceptions to wherever OpenTelemetry's variables point.
NO_TELEMETRY: Any = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
# Only for the API documentation; ``service.calls`` authenticates.
SHOWN_TOKEN = HTTPBearer(auto_error=False, description="As `pranet tokens add` prints it.")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {PROBLEM_TYPE: {}}}
    for status in (400, 401, 403, 406, 408, 413, 415, 422, 429, 500, 503, 504)
}
LIMITED: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 429)}  # of a token


class Sharing(CORSMiddleware):
    """Lets pages of other origins read answers (CORS); a preflight that asks for more is an error of this service."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or encode its error (ASGI)."""
        is_error = "error" in scope.get("state", {})
        if is_error and scope["method"] == "OPTIONS":
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight.

        Raises:
            ForeignOrigin: the origin, method or a header is not allowed.

        """
        answer = super().preflight_response(request_headers)
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            raise ForeignOrigin(
                "the page's origin, or the method or a header of its request, is not allowed; ask the operator to add "
                f"the origin to CORS_ORIGINS, and send no other headers than {', '.join(CORS_REQUEST_HEADERS)}"
            )
        return answer


def build(service: Service) -> FastAPI:
    """Return the ASGI application over a running service."""
    app = Documented(
        title="PraNet service",
        version=__version__,
        description="Real-time polyp segmentation in colonoscopy frames. Research use only; not a medical device.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would use the client's Host header
        telemetry=NO_TELEMETRY,
        dependencies=[Depends(SHOWN_TOKEN)] if service.settings.api_tokens_file else [],
    )
    app.state.service = service
    service.calls.initialise_series(REST, HANDSHAKE, websocket.STREAM)
    errors.add_handlers(app)
    _add_routes(app)
    add_pages(app)
    _add_middleware(app, service)
    return app


def _add_middleware(app: FastAPI, service: Service) -> None:
    """Add the middleware; the last one added is the outermost."""
    settings = service.settings
    encode_error: ASGIApp = errors.encode
    if settings.origins:
        sharing: dict[str, Any] = {
            "allow_origins": [normalised(each) for each in settings.origins],
            "allow_methods": ("GET", "POST"),
            "allow_headers": CORS_REQUEST_HEADERS,
            "expose_headers": CORS_ANSWER_HEADERS,
        }
        app.add_middleware(Sharing, **sharing)
        encode_error = Sharing(errors.encode, **sharing)  # allowed origins may read errors too
    app.add_middleware(
        HttpCalls,
        calls=service.calls,
        errors={"http": encode_error, "websocket": websocket.encode_error},
        public_metrics=settings.public_metrics,
        origins=settings.origins,
        paths={route.path for route in app.routes if isinstance(route, Route) and not route.param_convertors},
        root_path=settings.root_path,
        proxies=settings.proxies,
    )


def _add_routes(app: FastAPI) -> None:
    app.post(
        "/segment",
        summary="Segment one image",
        tags=["Segmentation"],
        response_class=Response,
        responses={200: {"model": SegmentationBody, "content": SEGMENT_ANSWERS}, **PROBLEMS},
        openapi_extra={"requestBody": REQUEST_BODY},
    )(segment)
    app.post(
        "/segment/batch",
        summary="Segment an archive of images",
        tags=["Segmentation"],
        response_class=Response,
        responses={200: {"content": ARCHIVE_ANSWERS}, **PROBLEMS},
        openapi_extra={"requestBody": ARCHIVE_BODY},
    )(segment_batch)
    app.get("/livez", tags=OPERATION, summary="Liveness: the process answers")(livez)
    app.get("/readyz", tags=OPERATION, summary="Readiness: new work is accepted", responses={503: PROBLEMS[503]})(
        readyz
    )
    app.get("/info", tags=OPERATION, summary="Weights, engine and limits", responses=LIMITED)(info)
    app.get("/metrics", tags=OPERATION, summary="Prometheus metrics", response_class=Response, responses=LIMITED)(
        metrics
    )
    app.add_api_websocket_route("/stream", websocket.stream)
    app.get(
        "/stream",
        tags=["Live video"],
        summary="Video stream over a WebSocket",
        status_code=101,
        response_class=Response,
        responses={403: PROBLEMS[403], 426: PROBLEMS[400], **LIMITED},
        description=STREAM,
    )(no_websocket)
    app.add_route(oip.PREFIX, oip.server_metadata)
    app.mount(oip.PREFIX, oip.build(app.state.service))


async def segment(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
    """Answer an image with its mask, of the size and orientation of the upright image."""
    service: Service = request.app.state.service
    call = checked_call(request)
    if content_type(request) == DICOM_TYPE:
        return await _object(request, None, query, service)
    image, fields = await read_image(request, service.settings.max_image_bytes, call.deadline)
    asked = with_fields(query, fields) if fields else query
    if not image.startswith(STARTS) and is_object(image):
        return await _object(request, image, asked, service)
    if asked.omit_empty or asked.segmentation_type:
        raise InvalidParameter(f"a DICOM Segmentation needs a DICOM object; send one as Content-Type: {DICOM_TYPE}")
    kind = None if asked.output or accepts_anything(request) else negotiated(request, (PNG_TYPE, JSON_TYPE))
    options = asked.options(service.settings.threshold, default_output=OUTPUTS.get(kind, Output.MASK))
    frame = Frame(source=image, options=options, deadline=call.deadline)
    return _answer(await service.segmenter.segment(frame), call)


async def _object(request: Request, data: bytes | None, query: SegmentQuery, service: Service) -> Response:
    done = await dicom.respond(request, data, query, service)
    return _answer(done, call_of(request)) if isinstance(done, Segmentation) else done


async def segment_batch(request: Request, query: Annotated[FrameOptions, Query()]) -> Response:
    """Answer each image of a zip or multipart form as soon as it is ready, as NDJSON or ``multipart/mixed``."""
    service: Service = request.app.state.service
    call = checked_call(request)
    kind, mixed = None, False
    if not accepts_anything(request):
        mixed = negotiated(request, archive_routes.ANSWER_TYPES) == archive_routes.MIXED
        kind = preferred(accept_of(request), archive_routes.PICTURE_TYPES)

    def options(fields: Fields) -> Options:
        asked = with_fields(query, fields) if fields else query
        if asked.output == "maps":
            raise InvalidParameter("output=maps is not available for archives; send single images to POST /segment")
        return asked.options(service.settings.threshold, Priority.ARCHIVE, OUTPUTS.get(kind, Output.MASK))

    return await archive_routes.respond(request, call, options, service, mixed=mixed)


async def livez() -> dict[str, str]:
    """Answer 200 as long as the process runs, also while it starts or drains."""
    return {"status": "alive"}


async def readyz(request: Request) -> dict[str, str | int]:
    """Answer 200 if the service accepts new work, otherwise 503 with the reason; of several, say how many are ready."""
    service: Service = request.app.state.service
    return {"status": "ready", **service.readiness.check_service()}


async def info(request: Request) -> Info:
    """Return the weights that answer now, and the limits of this service."""
    service: Service = request.app.state.service
    return Info(
        service_version=__version__,
        model=ModelBody.model_validate(service.model, from_attributes=True),
        input_size=service.model.input_size,
        threshold=service.settings.threshold,
        max_batch_size=service.max_batch_size,
        max_queue_size=service.settings.max_queue_size,
        processes=service.settings.processes,
        max_image_bytes=service.settings.max_image_bytes,
        max_image_pixels=service.settings.max_image_pixels,
    )


async def metrics(request: Request) -> Response:
    """Return all metrics in the Prometheus text format, or in OpenMetrics if ``Accept`` prefers it."""
    service: Service = request.app.state.service
    families, accept = await service.scrape.families(), by_preference(accept_of(request))
    content, kind = await asyncio.to_thread(service.metrics.exposition, accept, families)
    return Response(content, headers={"content-type": kind})


async def no_websocket() -> None:
    """Refuse a plain GET of the video stream."""
    raise UpgradeRequired("the video stream is a WebSocket; open one at this path, see docs/live-video.md")


def _answer(done: Segmentation, call: Call) -> Response:
    headers = done.headers()
    if done.options.output is Output.JSON:
        body = SegmentationBody.of(done, call.request_id)
        return Response(body.model_dump_json(), media_type=JSON_TYPE, headers=headers)
    return Response(done.png, media_type=PNG_TYPE, headers=headers)
