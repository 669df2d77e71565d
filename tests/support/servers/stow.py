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
    headers: list[dict[str, str]] = field(default_factory=list)
    stored: list[pydicom.Dataset] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    @property
    def body(self) -> dict[str, Any]:
        if self.reason is None:
            return {}
        return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [self.reason]}}]}}


@contextlib.contextmanager
def stow(status: int = 200, reason: int | None = None) -> Iterator[Stow]:
    """Run the PACS; it keeps what it was sent if it answers 200."""
    it = Stow(status=status, reason=reason)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/dicom-web/studies"
            body = self.rfile.read(int(self.headers["content-length"]))
            it.headers.append({name.lower(): value for name, value in self.headers.items()})
            if it.status == 200:
                boundary = self.headers["content-type"].partition("boundary=")[2]
                part = body.removeprefix(f"--{boundary}\r\n".encode()).removesuffix(f"\r\n--{boundary}--\r\n".encode())
                it.stored.append(pydicom.dcmread(DicomBytesIO(part.partition(b"\r\n\r\n")[2])))
            answer = json.dumps(it.body).encode()
            self.send_response(it.status)
            self.send_header("content-type", "application/dicom+json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        it.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield it
        server.shutdown()
