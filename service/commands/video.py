"""Sources of video frames: a file, a folder, a camera, a network address, or a synthetic sweep over a sample."""

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from model import files
from model.errors import UserError
from model.transforms import Pixels
from pranet_client.connection import VideoFrame
from pranet_client.pictures import Picture, PixelFormat, RawPicture
from service import SAMPLES

DEMO = "demo:"
DEMO_FRAMES = 120  # of one sweep forth and back
DEMO_SIZE = (640, 480)  # pixels
SAMPLE = SAMPLES / "polyp-1.jpg"
JPEG_QUALITY = 92
DEFAULT_FPS = 30.0  # of a source without a frame rate
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
VIDEOS = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"})


class SourceError(UserError):
    """The source cannot be opened or read."""


class Source:
    """Pictures in order, with their frame rate in frames per second."""

    def __init__(self, pictures: Iterable[Picture], fps: float, *, live: bool) -> None:
        self.pictures = pictures
        self.fps = fps
        self.live = live  # a camera, which delivers frames at its own rate


def open_source(name: str, *, raw: bool = False) -> Source:
    """Open a source by its name; ``raw`` yields decoded frames as raw pixels instead of JPEG.

    Raises:
        SourceError: the source does not exist or cannot be read, or it needs PyAV, which is not installed.

    """
    path = Path(name)
    if name.startswith(DEMO):
        return Source(itertools.cycle(sweep()), DEFAULT_FPS, live=False)
    if path.is_dir():
        pictures = files.listed(path, PICTURES)
        if not pictures:
            raise SourceError(f"{path} holds no pictures; give a folder with {', '.join(sorted(PICTURES))} files")
        return Source((file.read_bytes() for file in pictures), DEFAULT_FPS, live=False)
    if "://" not in name and not path.exists():
        raise SourceError(
            f"{name} does not exist; give a file, a folder of frames, /dev/videoN, an rtsp:// address or {DEMO}"
        )
    return _open_video(name, raw)


def sweep() -> list[bytes]:
    """Return JPEG frames that pan and zoom over a bundled sample, forth and back, with changing brightness."""
    sample = np.asarray(Image.open(SAMPLE).convert("RGB"))[:, :, ::-1]  # BGR, as OpenCV has it
    width, height = DEMO_SIZE
    frames = []
    for number in range(DEMO_FRAMES):
        phase = 2 * np.pi * number / DEMO_FRAMES
        zoom = 1.25 + 0.2 * np.cos(phase)
        scale = zoom * max(width / sample.shape[1], height / sample.shape[0])
        shift = 0.06 * np.array([np.sin(phase) * width, np.sin(2 * phase) * height])
        centre = np.array([sample.shape[1], sample.shape[0]]) / 2
        offset = np.array([width, height]) / 2 - scale * centre + shift
        moved = cv2.warpAffine(
            sample, np.array([[scale, 0, offset[0]], [0, scale, offset[1]]]), DEMO_SIZE, borderMode=cv2.BORDER_REFLECT
        )
        lit = cv2.convertScaleAbs(moved, alpha=0.85 + 0.15 * float(np.cos(3 * phase)))
        frames.append(_jpeg(lit))
    return frames


def paced(source: Source, fps: float | None, limit_seconds: float | None, *, hold: bool) -> Iterator[VideoFrame]:
    """Yield the pictures as frames, with numbers and capture times.

    Args:
        source: the pictures.
        fps: frame rate; None: the source's own.
        limit_seconds: stop after this time; None: at the end of the source.
        hold: yield the frames of a recording at its frame rate, like a camera, instead of as fast as possible.

    """
    began = time.monotonic()
    interval = 1 / (fps or source.fps)
    hold = hold and not source.live
    for number, picture in enumerate(source.pictures):
        due = began + number * interval
        if limit_seconds is not None and (due if hold else time.monotonic()) - began >= limit_seconds:
            return
        if hold:
            time.sleep(max(0.0, due - time.monotonic()))
        yield VideoFrame(number, picture, time.monotonic())


def _open_video(name: str, raw: bool) -> Source:
    av = load_av()
    options = {"rtsp_transport": "tcp", "fflags": "nobuffer"} if name.startswith("rtsp") else {}
    camera = name.startswith("/dev/")
    try:
        container = av.open(name, format="v4l2" if camera else None, options=options, timeout=None if camera else 10)
        stream = container.streams.video[0]
    except (av.FFmpegError, IndexError, OSError) as error:
        raise SourceError(f"{name} cannot be read as video: {error}") from error
    live = camera or "://" in name
    stream.thread_type = "SLICE" if live else "AUTO"  # threading by frame delays video by one frame per thread
    pictures = _decoded(container, stream, raw)
    return Source(_named(name, pictures, endless=live), float(stream.average_rate or DEFAULT_FPS), live=live)


def _decoded(container: Any, stream: Any, raw: bool) -> Iterator[Picture]:
    with container:
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="rgb24")  # (H, W, 3)
            yield raw_picture(pixels) if raw else _jpeg(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def _named(name: str, pictures: Iterator[Picture], *, endless: bool) -> Iterator[Picture]:
    """Yield the pictures; errors name the source. The end of an ``endless`` source, a camera, is an error too."""
    try:
        yield from pictures
    except load_av().FFmpegError as error:
        raise SourceError(f"{name} ended with an error: {error}") from error
    if endless:
        raise SourceError(f"{name} stopped sending frames; check the camera and the network")


def raw_picture(pixels: Pixels) -> RawPicture:
    """Return uint8 RGB pixels (H, W, 3) as a raw picture."""
    height, width, _ = pixels.shape
    return RawPicture(PixelFormat.RGB24, width, height, 3 * width, pixels.tobytes())


def load_av() -> Any:
    """Import and return PyAV, which only video needs.

    Raises:
        SourceError: PyAV is not installed.

    """
    try:
        import av
    except ImportError as error:
        raise SourceError("video needs PyAV: pip install 'pranet-service[video]'") from error
    return av


def _jpeg(pixels: Any) -> bytes:
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()


class VideoWriter:
    """Writes RGB pictures of one size as H.264; use it as ``with``."""

    def __init__(self, path: Path, fps: float) -> None:
        self._av = load_av()
        self._path = path
        self._fps = round(fps)
        self._stream: Any = None

    def __enter__(self) -> "VideoWriter":
        try:
            self._container = self._av.open(str(self._path), "w")
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"{self._path} cannot be written as video ({error}); give a path such as out.mp4"
            ) from error
        return self

    def write(self, pixels: Pixels) -> None:
        """Append uint8 RGB pixels (H, W, 3); an odd last row or column is cut off, since H.264 needs even sides."""
        height, width = pixels.shape[0] & ~1, pixels.shape[1] & ~1
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._fps)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        even = np.ascontiguousarray(pixels[:height, :width])
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(even, format="rgb24")))

    def __exit__(self, *exc_info: object) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
