"""Sources of video frames: a file, a folder, a camera, a network address, or a synthetic sweep over a sample."""

import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from model import files
from model.errors import SourceError
from model.pictures.suffixes import PICTURES
from pranet_client.pictures import VideoFrame
from service.commands.video.decoding import TimedPicture, decoded
from service.commands.video.demo import sweep
from service.commands.video.live import Live
from service.commands.video.matroska import missing_bytes
from service.commands.video.pyav import load_av, reason
from service.frames.decoded_video import any_tags, video_stream

DEMO = "demo:"
CAMERAS = "/dev/video"  # other folders there, such as /dev/shm, hold files
DEFAULT_FPS = 30.0  # of a source without a frame rate
RTP_CLOCK = Fraction(1, 90_000)  # of video, seconds (RFC 3551): the time base of live sources


class Source:
    """Pictures in order, with their times.

    Args:
        pictures: the frames; those of a source without times of its own are numbered through.
        fps: frame rate, frames a second.
        time_base: unit of the presentation times, seconds; None: one frame.
        pixel_aspect: width of a pixel by its height; video of PAL and NTSC has other pixels than squares.
        count: number of frames, as far as a file's header says; None: unknown.
        live: a camera, which delivers frames at its own rate.

    """

    def __init__(
        self,
        pictures: Iterable[TimedPicture],
        fps: float,
        *,
        time_base: Fraction | None = None,
        pixel_aspect: Fraction | None = None,
        count: int | None = None,
        live: Live | None = None,
    ) -> None:
        self.pictures = pictures
        self.fps = fps
        self.time_base = time_base
        self.pixel_aspect = pixel_aspect or Fraction(1)
        self.count = count
        self._live = live

    @property
    def live(self) -> bool:
        """Return whether the source is a camera, whose frames have no presentation times."""
        return self._live is not None

    def close(self) -> None:
        """End a live source, whatever it waits for; its pictures end."""
        if self._live is not None:
            self._live.close()


def open_source(name: str, *, raw: bool = False, fps: float | None = None, until: float = math.inf) -> Source:
    """Open a source by its name.

    Args:
        name: a file, a folder, ``/dev/videoN``, an address, or ``demo:``.
        raw: yield decoded frames as raw pixels instead of JPEG.
        fps: frame rate of pictures without times of their own, frames a second.
        until: a time of ``time.monotonic``, seconds, after which no live source is connected again.

    Raises:
        SourceError: the source does not exist or cannot be read, or it needs PyAV, which is not installed.

    """
    path = Path(name)
    if name.startswith(DEMO):
        return _pictures(itertools.cycle(sweep()), fps)
    if path.is_dir():
        pictures = files.listed(path, PICTURES)
        if not pictures:
            raise SourceError(f"{path} holds no pictures; give a folder with {', '.join(sorted(PICTURES))} files")
        return _pictures(_contents(pictures), fps)
    if "://" in name or name.startswith(CAMERAS):
        live = Live(name, raw=raw, until=until)
        rate = live.fps or DEFAULT_FPS
        return Source(live.pictures(), rate, time_base=RTP_CLOCK, pixel_aspect=live.pixel_aspect, live=live)
    if not path.exists():
        known = name.rpartition("@")[2]  # of an address without its rtsp://, not the password
        raise SourceError(
            f"{known} does not exist; give a file, a folder of frames, /dev/videoN, an rtsp:// address or {DEMO}"
        )
    return _file(name, raw)


def paced(source: Source, fps: float | None, limit_seconds: float | None, *, hold: bool) -> Iterator[VideoFrame]:
    """Yield the pictures as frames, with numbers, capture times and presentation times.

    Args:
        source: the pictures.
        fps: how many frames to send a second, of a camera at most; None: as their presentation times say.
        limit_seconds: stop after this time; None: at the end of the source.
        hold: yield the frames of a recording in time, like a camera, instead of as fast as possible.

    """
    began = time.monotonic()
    hold = hold and not source.live
    pictures = _thinned(source.pictures, fps) if source.live and fps else source.pictures
    for number, shot in enumerate(pictures):
        due = began + (number / fps if fps else shot.seconds or 0.0)
        if limit_seconds is not None and (due if hold else time.monotonic()) - began >= limit_seconds:
            return
        if hold:
            time.sleep(max(0.0, due - time.monotonic()))
        yield VideoFrame(number, shot.picture, time.monotonic(), shot.seconds, shot.damaged)


def _thinned(pictures: Iterable[TimedPicture], fps: float) -> Iterator[TimedPicture]:
    """Pass over the pictures of a camera that come too early for a frame rate."""
    due = -math.inf
    for shot in pictures:
        now = time.monotonic()
        if now >= due:
            due += 1 / fps
            if due <= now:  # the first one, or a pause: nothing is caught up
                due = now + 1 / fps
            yield shot


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        yield content


def _pictures(pictures: Iterable[bytes], fps: float | None) -> Source:
    rate = fps or DEFAULT_FPS
    return Source((TimedPicture(picture, number / rate) for number, picture in enumerate(pictures)), rate)


def _file(name: str, raw: bool) -> Source:
    av = load_av()
    try:
        container = av.open(os.path.abspath(name), **any_tags(av))  # 10:30.mp4 alone would name a protocol
        stream = video_stream(container)
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{name} cannot be read as video: {reason(error)}") from error
    except LookupError as error:
        raise SourceError(f"{name} holds no video; give a file with a picture track") from error
    fps = float(stream.average_rate or DEFAULT_FPS)
    count = stream.frames or (round(float(stream.duration * stream.time_base) * fps) if stream.duration else None)
    pictures, pixel_aspect = _frames(name, container, stream, raw, fps), stream.sample_aspect_ratio
    return Source(pictures, fps, time_base=stream.time_base, pixel_aspect=pixel_aspect, count=count)


def _frames(name: str, container: Any, stream: Any, raw: bool, fps: float) -> Iterator[TimedPicture]:
    """Yield the frames of a file; errors name it, and come after all frames that can be decoded."""
    av = load_av()
    number, lost = 0, 0

    def lose() -> None:
        nonlocal lost
        lost += 1

    try:
        with container:
            for shot in decoded(container, stream, raw=raw, interval=1 / fps, lost=lose):
                number += 1
                yield shot
    except av.FFmpegError as error:
        raise SourceError(f"{name} is damaged after frame {number}: {reason(error)}") from error
    if not number:
        raise SourceError(f"{name} holds no frame; give a video that plays")
    if lost:
        raise SourceError(
            f"{name} is damaged: {lost} of its packets cannot be decoded, so their frames are missing; copy it again"
        )
    if missing := _missing(name):
        raise SourceError(f"{name} is cut off: its last {missing} bytes are missing, and their frames; copy it again")


def _missing(name: str) -> int:
    try:
        return missing_bytes(Path(name))
    except OSError:  # it was deleted after it was opened
        return 0
