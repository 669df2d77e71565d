"""A PACS that answers STOW-RS as a test tells it to."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pydicom
from pydicom.filebase import DicomBytesIO


@dataclass
class Stow:
    """What the PACS was sent, and what it answers."""

    port: int = 0
    status: int = 200
    reason: int | None = None  # FailureReason of the object
    content_type: str = "application/dicom+json"
    log_in: bool = False  # answer a page, as a proxy does in front of a PACS
    headers: list[dict[str, str]] = field(default_factory=list)
    stored: list[pydicom.Dataset] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def body(self, uid: str) -> bytes:
        """Return what tells of the object with this UID."""
        if self.log_in:
            return b"<html>Please log in</html>"
        if "xml" in self.content_type:
            return native(uid, self.reason)
        told: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if self.reason is not None:
            told["00081197"] = {"vr": "US", "Value": [self.reason]}
        tag = "00081199" if self.reason is None else "00081198"
        return json.dumps({tag: {"vr": "SQ", "Value": [told]}}).encode()


def native(uid: str, reason: int | None) -> bytes:
    """Return what tells of an object as XML (PS3.19, A.1)."""
    item = f"<DicomAttribute tag='00081155' vr='UI'><Value number='1'>{uid}</Value></DicomAttribute>"
    if reason is not None:
        item += f"<DicomAttribute tag='00081197' vr='US'><Value number='1'>{reason}</Value></DicomAttribute>"
    tag = "00081199" if reason is None else "00081198"
    item = f"<DicomAttribute tag='{tag}' vr='SQ'><Item number='1'>{item}</Item></DicomAttribute>"
    space = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
    return f"<?xml version='1.0'?><NativeDicomModel xmlns='{space}'>{item}</NativeDicomModel>".encode()


@contextlib.contextmanager
def stow(status: int = 200, reason: int | None = None) -> Iterator[Stow]:
    """Run the PACS; it keeps what it was sent if it answers 200."""
    it = Stow(status=status, reason=reason)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/dicom-web/studies"
            body = self.rfile.read(int(self.headers["content-length"]))
            it.headers.append({name.lower(): value for name, value in self.headers.items()})
            boundary = self.headers["content-type"].partition("boundary=")[2]
            part = body.removeprefix(f"--{boundary}\r\n".encode()).removesuffix(f"\r\n--{boundary}--\r\n".encode())
            sent = pydicom.dcmread(DicomBytesIO(part.partition(b"\r\n\r\n")[2]))
            if it.status == 200 and not it.log_in:
                it.stored.append(sent)
            answer = it.body(str(sent.SOPInstanceUID))
            self.send_response(it.status)
            self.send_header("content-type", "text/html" if it.log_in else it.content_type)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        it.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield it
        server.shutdown()
