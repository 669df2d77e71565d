"""The routes that Label Studio calls on an ML back end."""

import asyncio
import base64
import json
import logging
import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pranet_client.async_client import AsyncClient
from pranet_client.errors import ClientError, RequestFailed
from service.annotation.errors import ConfigError, PictureError
from service.annotation.labelling import Control, control_of
from service.annotation.pictures import Pictures
from service.annotation.results import prediction

# Label Studio gives up after 100 s and then drops every prediction of the request; what is done by now, it keeps.
PREDICT_SECONDS = 90.0
INFO_SECONDS = 2.0  # of the 3 s that Label Studio waits for /setup
AT_ONCE = 8  # pictures; enough to fetch some while others are segmented
MOST_BYTES = 256 * 1024 * 1024  # of a request, whose tasks may hold their pictures

log = logging.getLogger(__name__)


class Backend:
    """Answers Label Studio's calls with masks of a running service."""

    def __init__(self, client: AsyncClient, pictures: Pictures, seconds: float = PREDICT_SECONDS) -> None:
        self._client = client
        self._pictures = pictures
        self._seconds = seconds

    def app(self, login: str | None = None) -> Starlette:
        """Return the application; with a ``login``, NAME:PASSWORD, it asks for HTTP basic authentication."""
        routes = [Route(path, self.health, methods=["GET"]) for path in ("/", "/health")]
        routes += [Route("/versions", self.versions, methods=["GET"])]
        routes += [
            Route(f"/{each.__name__}", each, methods=["POST"]) for each in (self.setup, self.predict, self.webhook)
        ]
        guard = [Middleware(BasicAuthentication, login=login)] if login else []
        errors = {ConfigError: _refuse, RequestFailed: _unavailable}
        return Starlette(routes=routes, middleware=guard, exception_handlers=errors)

    async def health(self, request: Request) -> JSONResponse:
        """Say that the back end runs; Label Studio waits 1 s for this, so nothing else is asked."""
        return JSONResponse({"status": "UP", "model_class": "PraNet"})

    async def setup(self, request: Request) -> JSONResponse:
        """Answer with the model that runs, if the project's configuration has a place for polyps."""
        control_of(str((await _body(request)).get("schema", "")))
        return JSONResponse({"model_version": await self._model_id()})

    async def versions(self, request: Request) -> JSONResponse:
        """List the one model that runs."""
        return JSONResponse({"versions": [await self._model_id()]})

    async def webhook(self, request: Request) -> JSONResponse:
        """Take note of nothing: the network does not learn from annotations here."""
        return JSONResponse({"result": "ignored", "status": "ok"})

    async def predict(self, request: Request) -> JSONResponse:
        """Answer with one entry for each task, in order: its prediction, or its error.

        Label Studio keeps the predictions, logs the errors, and leaves those tasks without a prediction. It matches
        entries to tasks by their place, and drops all of them if one is missing.
        """
        body = await _body(request)
        control = control_of(str(body.get("label_config", "")))
        limit = asyncio.Semaphore(AT_ONCE)
        running = [asyncio.create_task(self._predict(task, control, limit)) for task in body.get("tasks", [])]
        try:
            if running:
                await asyncio.wait(running, timeout=self._seconds)
        finally:
            for each in running:
                each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return JSONResponse({"results": [_entry(each) for each in running]})

    async def _predict(self, task: dict[str, Any], control: Control, limit: asyncio.Semaphore) -> dict[str, Any]:
        async with limit:
            try:
                source = task["data"].get(control.field)
                if not isinstance(source, str):
                    advice = "import the task again with the address of its picture there"
                    raise PictureError(f"the task has no picture: its data has no text {control.field!r}; {advice}")
                answer = await self._client.segment(await self._pictures.fetch(source, int(task["id"])))
                return await asyncio.to_thread(prediction, answer, control)
            except (PictureError, ClientError) as error:
                log.warning("task %s has no prediction: %s", task["id"], error)
                return {"error": str(error)}

    async def _model_id(self) -> str:
        try:
            async with asyncio.timeout(INFO_SECONDS):
                return (await self._client.info()).model.model_id
        except TimeoutError:
            raise RequestFailed("timeout", f"the service did not answer within {INFO_SECONDS:g} s") from None


class BasicAuthentication:
    """Lets through only requests with one name and password (RFC 7617), which Label Studio can be given."""

    def __init__(self, app: ASGIApp, login: str) -> None:
        self._app = app
        self._login = login.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] != "http" or secrets.compare_digest(_login_of(Request(scope)), self._login):
            await self._app(scope, receive, send)
            return
        headers = {"www-authenticate": 'Basic realm="pranet", charset="UTF-8"'}
        await JSONResponse({"error": "name or password is wrong"}, 401, headers)(scope, receive, send)


def _login_of(request: Request) -> bytes:
    scheme, _, coded = request.headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(coded, validate=True) if scheme.lower() == "basic" else b""
    except ValueError:  # not base64, or not even ASCII
        return b""


def _entry(done: "asyncio.Task[dict[str, Any]]") -> dict[str, Any]:
    if done.cancelled():
        return {"error": "there was no time left for this task; ask for its prediction again"}
    if error := done.exception():
        log.error("a task has no prediction, by a fault of the back end", exc_info=error)
        return {"error": "a fault of the back end; its log has the cause"}
    return done.result()


async def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object that was sent."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise ConfigError(f"the request has more than {MOST_BYTES} bytes; ask for fewer tasks at once")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the request is not JSON ({error})") from error
    if not isinstance(body, dict):
        raise ConfigError("the request is not a JSON object")
    return body


def _refuse(request: Request, error: Exception) -> JSONResponse:
    log.error("%s: %s", request.url.path, error)  # Label Studio shows only the status
    return JSONResponse({"error": str(error)}, 422)


def _unavailable(request: Request, error: Exception) -> JSONResponse:
    log.error("%s: %s", request.url.path, error)
    return JSONResponse({"error": str(error)}, 503)
