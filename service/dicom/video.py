"""Frames of a DICOM video: one stream of MPEG-2, H.264 or H.265, encapsulated as a whole (PS3.5, 8.2.5 to 8.2.9)."""

import io
import threading
from typing import Any

from pydicom.encaps import generate_fragments
from pydicom.uid import MPEGTransferSyntaxes

from model.errors import how_to_install
from pranet_client.pictures import RawPicture
from service.errors import UndecodableImage, UnsupportedImage
from service.frames.decoded_video import Matrix, any_tags, display_matrix, frames_of, raw_picture, upright, video_stream

SYNTAXES = frozenset(MPEGTransferSyntaxes)
# The demuxers that FFmpeg may choose by the first bytes. Others, such as those of playlists, would open further files.
FORMATS = "h264,hevc,mov,mpeg,mpegts,mpegvideo"
KEPT = 64  # frames that are decoded and not taken; the pictures of an archive are asked for nearly in order
BLOCK = 64  # pixels to which coded sides may be rounded up
OFFSET_BYTES = 4  # of an entry of the offset table


class Video:
    """A video that is decoded frame by frame, as they are asked for; to ask again decodes it again from the start."""

    _container: Any = None

    def __init__(self, pixel_data: bytes, width: int, height: int, count: int) -> None:
        """Open the stream.

        Args:
            pixel_data: the encapsulated stream.
            width: of each frame, pixels, as the object declares it.
            height: of each frame, pixels.
            count: declared number of frames.

        Raises:
            UnsupportedImage: PyAV is not installed.
            UndecodableImage: the data are no video.

        """
        try:
            import av
        except ImportError:
            advice = f"the operator can add PyAV: {how_to_install('video')}"
            raise UnsupportedImage(f"DICOM video is not supported by this installation; {advice}") from None
        self._av: Any = av
        self._pixel_data, self._size, self._count = pixel_data, (width, height), count
        self._lock = threading.Lock()
        self._open()

    def frame(self, index: int) -> RawPicture:
        """Return the frame at ``index``, counted from 0.

        Raises:
            UndecodableImage: the video is damaged before or at this frame, has another number of frames than its object
                declares, or frames of another size.

        """
        with self._lock:
            if index < self._decoded and index not in self._kept:
                self._open()
            while index not in self._kept:
                self._kept[self._decoded] = self._next()
                self._decoded += 1
                self._kept.pop(self._decoded - 1 - KEPT, None)  # abandoned: its caller has left
            picture = self._kept.pop(index)
            if index == self._count - 1:
                self._check_end()
        if picture is None:
            raise UndecodableImage("this frame of the DICOM video is damaged; send the video again")
        return picture

    def __del__(self) -> None:
        self._close()

    def _open(self) -> None:
        self._close()
        self._kept: dict[int, RawPicture | None] = {}  # None: damaged
        self._decoded = 0
        self._matrix: Matrix | None = None
        self._failure = ""  # what is wrong with all frames from here on
        width, height = self._size
        most = -(-width // BLOCK) * -(-height // BLOCK) * BLOCK**2
        limits = {"max_pixels": str(most)}
        only = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
        try:
            source = io.BytesIO(_stream(self._pixel_data, self._count))
            self._container = self._av.open(
                source, mode="r", options=limits, container_options=only, **any_tags(self._av)
            )
            stream = video_stream(self._container)
            stream.codec_context.options = limits
            self._frames = frames_of(self._container, stream)
        except Exception as error:  # FFmpeg's errors have many types
            raise UndecodableImage(
                f"the DICOM object holds no video that can be read ({type(error).__name__}); send it again"
            ) from None

    def _close(self) -> None:
        """Free the decoder; container and stream of PyAV refer to each other, so they would stay until a collection."""
        self._frames = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _next(self) -> RawPicture | None:
        if self._failure:
            raise UndecodableImage(self._failure)  # a new one: each would keep the traceback of those before
        try:
            frame, damaged = next(self._frames, (None, False))
            if frame is not None and not self._decoded:
                self._matrix = display_matrix(frame)
            pixels = None if frame is None else upright(frame, self._matrix)
        except Exception as error:
            kind = type(error).__name__
            self._failure = f"the DICOM video is damaged after frame {self._decoded} ({kind}); send it again"
            raise UndecodableImage(self._failure) from None
        if pixels is None:
            self._failure = self._miscounted(f"only {self._decoded}")
        elif pixels.shape[1::-1] != self._size:
            self._failure = (
                "the frames of the DICOM video differ in size from what its object declares; correct Rows and Columns"
            )
        else:
            return None if damaged else raw_picture(pixels)
        raise UndecodableImage(self._failure)

    def _check_end(self) -> None:
        try:
            more = next(self._frames, None)
        except Exception:
            more = None  # what is damaged behind the last declared frame is none of them
        self._close()
        if more is not None:
            raise UndecodableImage(self._miscounted("more"))

    def _miscounted(self, found: str) -> str:
        return f"NumberOfFrames declares {self._count} frames, and the DICOM video has {found}; correct the number"


def _stream(pixel_data: bytes, count: int) -> bytes:
    """Return the stream in encapsulated pixel data; some writers leave out the offset table that goes before it."""
    table, *rest = generate_fragments(io.BytesIO(pixel_data))
    return b"".join([table, *rest] if len(table) > OFFSET_BYTES * count else rest)
