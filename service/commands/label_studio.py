"""``pranet label-studio``: serves what Label Studio calls on an ML back end, as a client of a running server."""

import argparse
import logging
import socket
from pathlib import Path

import httpx
import uvicorn
import uvloop

from pranet_client.async_client import AsyncClient
from service.access.listening import LOOPBACK, listener, why
from service.annotation.backend import Backend
from service.annotation.errors import StartError
from service.annotation.pictures import Pictures
from service.commands.access import AccessError, access_of, secret_of
from service.observability import logs

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT.

    Raises:
        AccessError: a token or the login cannot be read.
        StartError: an address is not valid, or the port is taken.
        TlsError: a certificate, key or authority file cannot be used.

    """
    logs.configure("info", "text")
    for name in ("httpx", "httpcore", "uvicorn"):  # httpx logs addresses of pictures
        logging.getLogger(name).setLevel(logging.WARNING)
    for flag, url in (("--server", arguments.server), ("--label-studio-url", arguments.label_studio_url)):
        _check(flag, url)
    token = _secret("--label-studio-token-file", arguments.label_studio_token_file)
    login = _secret("--login-file", arguments.login_file) if arguments.login_file else None
    if login is None and arguments.host not in LOOPBACK:
        log.warning("whoever reaches %s may ask for predictions; set --login-file", arguments.host)
    with _bound(arguments.host, arguments.port) as listener:
        uvloop.run(_serve(arguments, token, login, listener))
    return 0


async def _serve(arguments: argparse.Namespace, token: str, login: str | None, listener: socket.socket) -> None:
    async with (
        AsyncClient(arguments.server, access=access_of(arguments)) as client,
        Pictures(arguments.label_studio_url, token) as pictures,
    ):
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"The ML back end for Label Studio is ready: http://{host}:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            Backend(client, pictures).app(login),
            log_config=None,
            access_log=False,
            lifespan="off",
            workers=1,  # otherwise WEB_CONCURRENCY would start more
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        await uvicorn.Server(config).serve(sockets=[listener])


def _check(flag: str, url: str) -> None:
    """Refuse an address that no request can be sent to."""
    try:
        valid = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        valid = False
    if not valid:
        raise StartError(f"{flag} {url} is not an address; give it as http://HOST:PORT")


def _secret(flag: str, file: Path) -> str:
    secret = secret_of(flag, file)
    if not secret or not secret.isprintable() or not secret.isascii():
        raise AccessError(f"{flag} {file} holds no secret; put it there in one line")
    return secret


def _bound(host: str, port: int) -> socket.socket:
    try:
        return listener(host, port)
    except OSError as error:
        raise StartError(
            f"port {port} of {host} cannot be opened ({why(error)}); choose others: --host, --port"
        ) from error
