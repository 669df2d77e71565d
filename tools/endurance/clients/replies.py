"""How one request ended, as its client sees it, and what the service must have counted for it."""

import json
from collections import Counter
from dataclasses import dataclass, field

import grpc
import httpx

from pranet_client.errors import ERROR_METADATA_KEY
from tests.support.callers import cause
from tools.endurance.book import UNCOUNTED, Book

ANSWERED, LOST, LEFT = "answered", "lost", "left"
WORK = ("answered", "failed", "abandoned", UNCOUNTED)  # what may have become of a frame that nobody heard of
NEVER_STARTED = {"unauthenticated", "body-too-slow", "not-ready"}  # causes by which no frame was begun
BY_STATUS = {429: "queue-full", 500: "inference-failed", 503: "draining", 504: "deadline-exceeded"}  # without a cause
RETRIED = {"queue-full", "draining", "not-ready"}  # causes that come with a time to retry


@dataclass(frozen=True)
class Reply:
    """The end of a request: ``code`` as the transport's metrics have it, and the cause of an error."""

    code: str
    cause: str = ""  # empty: answered
    model_id: str = ""
    is_complete: bool = True  # an error names its cause, and when to retry if that helps
    parts: Counter[str] = field(default_factory=Counter)  # of an archive: pictures by cause, "" for the answered ones

    @property
    def outcome(self) -> str:
        return f"{self.code} {self.cause}" if self.cause else ANSWERED

    def note(self, book: Book, what: str, transport: str, frames: int, began: float, ended: float) -> None:
        """Record what the service must have counted."""
        book.note(what, began, ended, **{transport: self.code})
        book.note(f"cause of {what}", began, ended, rejected=self.cause or UNCOUNTED)
        if self.cause and frames > 1:  # of a study: those that had been begun have failed, too
            for _ in range(frames):
                book.note(f"cause of a frame of {what}", began, ended, rejected=(self.cause, UNCOUNTED))
        for part, number in self.parts.items():
            for _ in range(number):
                book.note(f"cause of {what}", began, ended, rejected=part or UNCOUNTED)
        for work in self._work(frames):
            book.note(f"frame of {what}", began, ended, work=work)

    def _work(self, frames: int) -> list[str | tuple[str, ...]]:
        if self.parts:
            return [_of(cause) for cause, number in self.parts.items() for _ in range(number)]
        return frames * [_of(self.cause)]


def _of(cause: str) -> str | tuple[str, ...]:
    """Return the outcomes that a frame may have in the data path if its request ended with a cause."""
    if not cause:
        return ANSWERED
    if cause in NEVER_STARTED:
        return UNCOUNTED
    return "failed" if cause == "inference-failed" else WORK


def of_http(answer: httpx.Response) -> Reply:
    """Read an answer of REST, or of the Open Inference Protocol, whose errors have no cause."""
    status = answer.status_code
    if status == 200:
        return Reply("200", model_id=answer.headers.get("x-model", ""), parts=_parts(answer))
    body = json.loads(answer.content or b"{}")
    named = cause(body["type"]) if "type" in body else BY_STATUS.get(status, f"status {status}")
    says = bool(body.get("detail") or body.get("error"))
    retried = named not in RETRIED or answer.headers.get("retry-after", "").isdigit()
    return Reply(str(status), named, is_complete=says and retried)


def _parts(answer: httpx.Response) -> Counter[str]:
    if not answer.headers["content-type"].startswith("application/x-ndjson"):
        return Counter()
    lines = [json.loads(line) for line in answer.content.splitlines()]
    if len(lines) != int(answer.headers["x-pictures"]):
        raise httpx.RemoteProtocolError("the answer of an archive has not all of its pictures")
    return Counter(cause(line["error"]["type"]) if "error" in line else "" for line in lines)


def of_grpc(error: grpc.aio.AioRpcError) -> Reply | None:
    """Read the status of a call; None if it comes from the client's own library, which lost the service."""
    metadata = dict(error.trailing_metadata() or ())
    if not (named := str(metadata.get(ERROR_METADATA_KEY, ""))):
        return None
    retried = named not in RETRIED or str(metadata.get("retry-after", "")).isdigit()
    return Reply(error.code().name, named, is_complete=bool(error.details()) and retried)
