"""Fetches the pictures of tasks, from Label Studio and from nowhere else."""

import base64
import binascii
from collections.abc import AsyncGenerator
from urllib.parse import unquote_to_bytes

import httpx

from service.annotation.errors import PictureError

MOST_BYTES = 64 * 1024 * 1024
SECONDS = 30.0  # that Label Studio may take
STORAGES = ("s3", "gs", "azure-blob")  # schemes of addresses that Label Studio itself must fetch


class Pictures:
    """The pictures of one Label Studio; use it as ``async with``.

    A task names its picture by an address that whoever imports tasks can choose. The back end may reach more than that
    person, so it asks no other host, and follows no redirection.

    Args:
        url: where Label Studio is, such as ``http://127.0.0.1:8080``.
        token: a legacy token or a personal access token of a user who may see the tasks.

    """

    def __init__(self, url: str, token: str) -> None:
        self._home = httpx.URL(url.rstrip("/") + "/")
        login = Login(token, self._home.join("api/token/refresh/"))
        self._http = httpx.AsyncClient(auth=login, timeout=SECONDS, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> "Pictures":
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._http.aclose()

    async def fetch(self, source: str, task: int) -> bytes:
        """Return the file of a picture.

        Args:
            source: what the task says: a path or address at Label Studio, an object of its storage, or a data: URI.
            task: the task's number.

        Raises:
            PictureError: the picture lies elsewhere, is missing or too large, or Label Studio does not give it.

        """
        if source.startswith("data:"):
            return _inline(source)
        try:
            async with self._http.stream("GET", self._address(source, task)) as answer:
                return await _body(answer)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            advice = "check that it runs, and --label-studio-url"
            raise PictureError(f"Label Studio at {self._home} did not answer ({reason}); {advice}") from error

    def _address(self, source: str, task: int) -> httpx.URL:
        """Return the address of a picture at Label Studio."""
        try:
            given = httpx.URL(source)
        except httpx.InvalidURL as error:
            raise PictureError(f"the address of the picture is not valid ({error}); correct it in the task") from error
        if given.scheme in STORAGES:
            coded = base64.urlsafe_b64encode(source.encode()).decode()
            return self._home.join(f"tasks/{task}/resolve/").copy_with(params={"fileuri": coded})
        below = source.lstrip("/") if not source.startswith(self._home.path) else source
        address = self._home.join(given if given.is_absolute_url or source.startswith("//") else below)
        if _origin(address) != _origin(self._home):
            raise PictureError(
                f"the picture is at {address.scheme}://{address.host}, and pictures are fetched from Label Studio at "
                f"{self._home} only; upload it there, or, if this is Label Studio, give it as --label-studio-url"
            )
        return address


class Login(httpx.Auth):
    """Sends a legacy token as it is, and for a personal one the token of some minutes that it is exchanged for."""

    def __init__(self, token: str, exchange: httpx.URL) -> None:
        self._token = token
        self._exchange = exchange
        self._short: str | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send one request, again after a new exchange if its token has expired."""
        if self._token.count(".") != 2:  # no JSON Web Token
            request.headers["authorization"] = f"Token {self._token}"
            yield request
            return
        if self._short:
            request.headers["authorization"] = f"Bearer {self._short}"
            if (yield request).status_code != httpx.codes.UNAUTHORIZED:
                return
        answer = yield httpx.Request("POST", self._exchange, json={"refresh": self._token})
        await answer.aread()
        if not answer.is_success:
            raise PictureError(
                f"Label Studio refused the personal access token with {answer.status_code}; put a new one into the file"
            )
        self._short = answer.json()["access"]
        request.headers["authorization"] = f"Bearer {self._short}"
        yield request


def _origin(address: httpx.URL) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port


async def _body(answer: httpx.Response) -> bytes:
    if answer.is_redirect:
        raise PictureError(
            "Label Studio says that the picture is at another address, which is not followed; turn off pre-signed URLs "
            "in the settings of its storage"
        )
    if not answer.is_success:
        advice = "check --label-studio-token-file, and that the user of the token may see the project"
        raise PictureError(f"Label Studio answered {answer.status_code} for the picture; {advice}")
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        _check_size(content)
    return bytes(content)


def _check_size(content: bytes | bytearray) -> None:
    if len(content) > MOST_BYTES:
        raise PictureError(f"the picture has more than {MOST_BYTES} bytes; import a smaller copy of it")


def _inline(source: str) -> bytes:
    """Return what a data: URI holds (RFC 2397)."""
    kind, comma, coded = source.partition(",")
    try:
        content = unquote_to_bytes(coded)
        if kind.endswith(";base64") and comma:
            content = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise PictureError(
            f"the data: URI of the picture is damaged ({error}); import the task again, or upload the picture"
        ) from error
    _check_size(content)
    return content
