"""The part of Label Studio that keeps the files of tasks, with its two kinds of tokens."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pranet_client.async_client import AsyncClient
from service.annotation.backend import PREDICT_SECONDS, Backend
from service.annotation.pictures import Pictures
from tests.support.predictors import PATIENCE
from tests.support.serving import Running

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "head.body.signature"  # a JSON Web Token has three parts


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application inside the block; yield its address."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        listener = config.bind_socket()
        stack.callback(listener.close)
        running = asyncio.create_task(server._serve([listener]))  # without handlers of signals
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@dataclass
class Storage:
    """Files by their path; ``asked`` has the authorization of every request for one."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    exchanges: int = 0
    valid: set[str] = field(default_factory=lambda: {f"Token {LEGACY}"})
    url: str = ""

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/api/token/refresh/", self._exchange, methods=["POST"]),
                Route("/tasks/{task}/resolve/", self._resolve),
                Route("/moved/{path:path}", lambda request: RedirectResponse("http://198.51.100.1/x.png")),
                Route("/{path:path}", self._file),
            ]
        )

    async def _exchange(self, request: Request) -> Response:
        if (await request.json()) != {"refresh": PERSONAL}:
            return JSONResponse({"detail": "Token is invalid"}, 401)
        self.exchanges += 1
        self.valid = {f"Bearer short-{self.exchanges}"}
        return JSONResponse({"access": f"short-{self.exchanges}"})

    async def _resolve(self, request: Request) -> Response:
        name = base64.urlsafe_b64decode(request.query_params["fileuri"]).decode()
        return self._answer(request, f"{request.path_params['task']}:{name}")

    async def _file(self, request: Request) -> Response:
        return self._answer(request, request.url.path)

    def _answer(self, request: Request, name: str) -> Response:
        authorization = request.headers.get("authorization", "")
        self.asked.append((name, authorization))
        if authorization not in self.valid:
            return JSONResponse({"detail": "Invalid token."}, 401)
        return Response(self.files[name]) if name in self.files else Response(status_code=404)


@contextlib.asynccontextmanager
async def storing() -> AsyncIterator[Storage]:
    """Keep files for tasks inside the block."""
    storage = Storage()
    async with served(storage.app()) as url:
        storage.url = url
        yield storage


@contextlib.asynccontextmanager
async def backend(
    it: Running, storage: Storage, token: str = LEGACY, login: str | None = None, seconds: float = PREDICT_SECONDS
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the ML back end between a service and a storage; yield a client of it."""
    async with (
        AsyncClient(f"http://127.0.0.1:{it.port}", retries=0) as client,
        Pictures(storage.url, token) as pictures,
        served(Backend(client, pictures, seconds).app(login)) as url,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as asking,
    ):
        yield asking
