"""Live sources: cameras, and streams on a network, which are connected again when they stall or end.

Addresses may hold a user's name and password. They are never shown: not in errors, not in logs.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from model.errors import SourceError
from service.commands.video.decoding import TimedPicture, upright_picture
from service.commands.video.pyav import load_av, reason
from service.frames.decoded_video import any_tags, display_matrix, frames_of, video_stream

SILENT_SECONDS = 5.0  # how long a source may send nothing: at first, and before it is connected again
FIRST_PAUSE_SECONDS = 0.25  # before the second connection; doubled each time until one delivers a frame
LONGEST_PAUSE_SECONDS = 8.0
ADVICE = "check the address, the camera and the network"

log = logging.getLogger(__name__)


def shown(address: str) -> str:
    """Return an address without what may be a secret: the user, and everything that has the form name=value."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    rest = re.split(r"[?#]", rest.rpartition("@")[2])[0]  # a password may hold any character, even those of a path
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{re.sub(r'[^/]*=.*', '', path)}"


class Live:
    """A camera or a stream on a network.

    Args:
        name: ``/dev/videoN`` or an address.
        raw: yield raw pixels instead of JPEG.
        until: a time of ``time.monotonic``, seconds, after which an address is not connected again.

    Raises:
        SourceError: it cannot be reached or sends no video, or it needs PyAV, which is not installed.

    """

    def __init__(self, name: str, *, raw: bool, until: float = math.inf) -> None:
        self._av = load_av()
        self._name = name
        self._shown = shown(name)
        self._raw = raw
        self._until = until
        self._network = "://" in name
        self._closed = threading.Event()
        try:
            opened = self._open()
        except SourceError as error:
            raise SourceError(f"{error}; {ADVICE}") from None
        self._opened: tuple[Any, Any] | None = opened
        self.fps = float(opened[1].average_rate or 0.0)  # frames a second; 0: not said
        self.pixel_aspect = opened[1].sample_aspect_ratio  # width of a pixel by its height; None: not said

    def close(self) -> None:
        """Stop; ``pictures`` ends within ``SILENT_SECONDS``."""
        self._closed.set()

    def pictures(self) -> Iterator[TimedPicture]:
        """Yield frames as they come. When an address stalls or ends, it is connected again.

        Raises:
            SourceError: it stopped, and was not back in time.

        """
        pause, delivered = FIRST_PAUSE_SECONDS, False
        while not self._closed.is_set():
            try:
                for picture in self._delivered():
                    pause, delivered = FIRST_PAUSE_SECONDS, True
                    yield picture
                why = f"{self._shown} stopped sending frames"
            except SourceError as error:
                why = str(error)
            if not self._network or time.monotonic() + pause > self._until:
                raise SourceError(f"{why}; {ADVICE}")
            if delivered:
                log.warning("%s; connecting again", why)
            delivered = False
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _delivered(self) -> Iterator[TimedPicture]:
        (container, stream), self._opened = self._opened or self._open(), None
        matrix = None
        with container:
            began = time.monotonic()
            try:
                frames = frames_of(container, stream, lambda: self._check(began))
                for number, (frame, damaged) in enumerate(frames):
                    if self._closed.is_set():
                        return
                    matrix = matrix if number else display_matrix(frame)
                    yield TimedPicture(upright_picture(frame, matrix, raw=self._raw), None, damaged)
                    began = time.monotonic()
            except self._av.FFmpegError as error:
                raise self._error(error, began) from None  # the cause would show the address

    def _check(self, began: float) -> None:
        """Look at a packet that cannot be decoded, as the network loses some: live video goes on without it."""
        if time.monotonic() - began >= SILENT_SECONDS:
            raise SourceError(f"{self._shown} sent nothing that can be decoded for {SILENT_SECONDS:g} s")

    def _open(self) -> tuple[Any, Any]:
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer"} if self._name.startswith("rtsp") else {}
        began = time.monotonic()
        try:
            container = self._av.open(
                self._name,
                format=None if self._network else "v4l2",
                options=options,
                timeout=SILENT_SECONDS if self._network else None,
                **any_tags(self._av),
            )
        except (self._av.FFmpegError, OSError) as error:
            raise self._error(error, began) from None
        try:
            return container, video_stream(container)
        except LookupError:
            container.close()
            raise SourceError(f"{self._shown} sends no video") from None

    def _error(self, error: Exception, began: float) -> SourceError:
        """Say what happened; FFmpeg calls silence an exit or invalid data, depending on where it waited."""
        late = time.monotonic() - began >= SILENT_SECONDS or isinstance(error, self._av.error.ExitError)
        if self._network and late:
            return SourceError(f"{self._shown} sent nothing for {SILENT_SECONDS:g} s")
        return SourceError(f"{self._shown} cannot be read as video: {reason(error)}")
