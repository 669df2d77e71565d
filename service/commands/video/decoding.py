"""Frames of a video as players show them, with their times."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2

from pranet_client.pictures import Picture
from service.commands.video.demo import jpeg
from service.frames.decoded_video import Matrix, display_matrix, frames_of, raw_picture, upright


@dataclass(frozen=True, slots=True)
class TimedPicture:
    """One frame of a source."""

    picture: Picture
    seconds: float | None  # presentation time, from the first frame; None: live, shown as it comes
    damaged: bool = False  # a part was lost, and FFmpeg filled it with pixels nearby


def decoded(
    container: Any, stream: Any, *, raw: bool, interval: float, lost: Callable[[], None]
) -> Iterator[TimedPicture]:
    """Decode a video stream of an open PyAV container.

    Args:
        container: an open container of PyAV.
        stream: its video stream.
        raw: yield raw pixels instead of JPEG.
        interval: seconds from a frame to the next, for frames that carry no time of their own.
        lost: is called for each packet that cannot be decoded.

    """
    first, last, matrix = None, -interval, None
    made_up = container.format.name == "avi" and stream.codec_context.name == "h264"
    for frame, damaged in frames_of(container, stream, lost):
        time = _decoding_time(frame) if made_up else frame.time
        if first is None:
            first, matrix = time or 0.0, display_matrix(frame)
        seconds = last + interval if time is None else time - first
        if seconds <= last:  # a damaged file: time never stands still or goes back in a player
            seconds = last + interval
        last = seconds
        yield TimedPicture(upright_picture(frame, matrix, raw=raw), seconds, damaged)


def _decoding_time(frame: Any) -> float | None:
    """Return when a frame of PyAV left the decoder, seconds; None for the last ones, which no packet pushed out.

    AVI has no presentation times, and those that FFmpeg makes up for H.264 go back and forth around B-frames. Frames
    leave the decoder in the order in which they are shown, each as late as the first.
    """
    return None if frame.dts is None else float(frame.dts * frame.time_base)


def upright_picture(frame: Any, matrix: Matrix | None, *, raw: bool) -> Picture:
    """Return a decoded frame of PyAV as a raw picture or as JPEG, as a player shows it."""
    pixels = upright(frame, matrix)
    return raw_picture(pixels) if raw else jpeg(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
