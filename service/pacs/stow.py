"""Stores objects in a PACS with STOW-RS (PS3.18, 10.5)."""

import base64
import logging
import secrets
from http import HTTPStatus
from typing import Any
from xml.etree import ElementTree

import httpx

from model.errors import UserError
from pranet_client.credentials import Access

log = logging.getLogger(__name__)

SECONDS = 60.0  # for one answer
REFUSALS = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,  # no object was stored; the body says why
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    }
)
STORED = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED})
FAILED_SEQUENCE, FAILURE_REASON = "00081198", "00081197"  # FailedSOPSequence, FailureReason
REFERENCED_SEQUENCE, INSTANCE = "00081199", "00081155"  # ReferencedSOPSequence, ReferencedSOPInstanceUID
OUT_OF_RESOURCES = range(0xA700, 0xA800)
# Duplicate SOP Instance (PS3.7, C.4.2.1.6); 0xB00E and 0xB00F are Microsoft's: stored before, and being stored.
ALREADY_STORED, BEING_STORED = frozenset({0x0111, 0xB00E}), 0xB00F
# PS3.18, table 10.5.3-1 and PS3.3, C.14.1.1: what a failure reason means.
REASONS = {
    0x0110: "processing failure",
    0x0122: "its SOP class is not supported",
    0x0124: "not authorized",
    0x0131: "its SOP class is not supported for this object",
}


class AddressError(UserError):
    """The address of the PACS cannot be used."""


class Refused(Exception):
    """The PACS does not take this object; the message says why. Another attempt would not help."""


class Absent(Exception):
    """The PACS does not store this object now; the message says why. A later attempt may succeed."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered


class Pacs:
    """The DICOMweb service at an address; an ``async with`` block closes its connections.

    Args:
        url: its root, such as ``https://pacs/dicom-web``.
        access: with a bearer token, if the PACS takes one.
        user: ``user:password`` for basic authentication; None: none.

    Raises:
        AddressError: the address is not one of HTTP, or has a password, which every user could read.

    """

    def __init__(self, url: str, access: Access, user: str | None = None) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise AddressError(f"--stow-url {url} is not a URL ({error}); give https://HOST/dicom-web") from error
        if parsed.userinfo:
            raise AddressError("--stow-url may have no password; write user:password into a file for --token-file")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise AddressError(f"--stow-url {url} is no address of HTTP; give https://HOST/dicom-web")
        self.url = url.rstrip("/")
        self._client = access.http(self.url, timeout=SECONDS)
        if user is not None:  # in UTF-8, as RFC 7617 recommends
            self._client.headers["authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"

    async def __aenter__(self) -> "Pacs":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def store(self, content: bytes, uid: str) -> None:
        """Store one object.

        Args:
            content: its file.
            uid: its SOP Instance UID.

        Raises:
            Refused: the PACS does not take it.
            Absent: the PACS cannot be reached, has no room, or does not let us in.

        """
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        headers = {
            "content-type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "accept": "application/dicom+json",
        }
        body = head + content + f"\r\n--{boundary}--\r\n".encode()
        try:
            answer = await self._client.post("/studies", content=body, headers=headers)
        except httpx.HTTPError as error:
            connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)  # then others may get through
            why = f"it cannot be reached ({str(error) or type(error).__name__})"
            raise Absent(why, answered=connected) from error
        told = _told(answer)
        reason = _failure_reason(told)
        if reason in ALREADY_STORED:  # by an attempt whose answer was lost: nothing else has this UID
            return
        if reason == BEING_STORED:
            raise Absent("an earlier attempt has not ended there", answered=True)
        if reason in OUT_OF_RESOURCES:
            raise Absent("it is out of resources", answered=True)
        text = "" if reason is None else f", {REASONS.get(reason, f'failure reason {reason:#06x}')}"
        status = f"HTTP {answer.status_code}{text}"
        if answer.status_code in REFUSALS or (reason is not None and answer.status_code in STORED):
            raise Refused(status)
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise Absent(f"{status}, check --token-file", answered=True)
        if answer.status_code not in STORED:
            raise Absent(f"{status}, check --stow-url", answered=True)
        if not _names(told, uid):  # as of a page to log in
            raise Absent(f"{status}, but not as a DICOMweb server answers, check --stow-url", answered=True)


def _told(answer: httpx.Response) -> Any:
    """Return the data set of an answer in the model of JSON (PS3.18, F.2); not every server answers in it."""
    try:
        if "xml" in answer.headers.get("content-type", ""):
            return _from_xml(ElementTree.fromstring(answer.content))
        return answer.json()
    except (ValueError, LookupError, ElementTree.ParseError):  # LookupError: XML in an unknown encoding
        return None


def _from_xml(item: ElementTree.Element) -> dict[str, Any]:
    """Convert the Native DICOM Model (PS3.19, A.1), without what answers do not hold, such as names and bulk data."""
    return {
        attribute.get("tag", ""): {
            "Value": [_from_xml(each) if each.tag.endswith("Item") else each.text for each in attribute]
        }
        for attribute in item
    }


def _names(told: Any, uid: str) -> bool:
    """Tell whether an answer says that the object of this UID was stored."""
    try:
        return any(each[INSTANCE]["Value"] == [uid] for each in told[REFERENCED_SEQUENCE]["Value"])
    except (LookupError, TypeError):
        return False


def _failure_reason(told: Any) -> int | None:
    """Return why the object was not stored, as a code; None if the PACS stored it or does not tell."""
    try:
        return int(told[FAILED_SEQUENCE]["Value"][0][FAILURE_REASON]["Value"][0])
    except (ValueError, LookupError, TypeError):
        return None
