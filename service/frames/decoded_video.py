"""Decoded frames of PyAV as players show them: turned by the display matrix, in the colours of their tags.

The display matrix is that of ISO/IEC 14496-12, 6.2.2: it maps a pixel (p, q) to (a p + c q, b p + d q). Players turn by
quarters; another angle is taken as the nearest one.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from model.transforms import Pixels
from pranet_client.pictures import PixelFormat, RawPicture

BT709, UNSPECIFIED = 1, 2  # matrices of ITU-T H.273, table 4
Matrix = tuple[int, ...]
END, TAIL = b"\xff\xd9", 64  # the end of a JPEG, and how many bytes may lie around it

SD_ROWS = 576  # video without a tag is BT.709 above this, and BT.601 up to it, as players assume


def any_tags(av: Any) -> dict[str, Any]:
    """Return what lets ``av.open`` read tags in any encoding, as old files have them; PyAV 19 always does."""
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def video_stream(container: Any) -> Any:
    """Return the stream of an open container of PyAV that players show.

    Cover art is a stream of video, too, with one frame. In Windows Media, and in MP4 where its box comes before the
    tracks, it is the first one.

    Raises:
        LookupError: the container holds no video.

    """
    from av.stream import Disposition

    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise LookupError("no video")
    return stream


class Damage:
    """Tells which decoded frames of PyAV show pixels that FFmpeg made up.

    FFmpeg marks the frame whose own data it found damaged: neither those that refer to it, up to the next key frame,
    nor one whose packet came cut, nor those behind a packet that it could not decode, nor those before any key frame.
    """

    def __init__(self) -> None:
        self._made_up = True  # until the first key frame
        self._cut: list[float] = []  # presentation times of packets of which a part is missing
        self._lost = -math.inf  # presentation time of the last packet that could not be decoded

    def cut(self, packet: Any) -> None:
        """Note that a part of a packet is missing."""
        self._cut.append(_time(packet, -math.inf))

    def lose(self, packet: Any) -> None:
        """Note that a packet could not be decoded; frames before it leave the decoder later, also a key frame."""
        self._made_up, self._lost = True, _time(packet, -math.inf)

    def shows_in(self, frame: Any, *, key: bool = False) -> bool:
        """Tell whether the next frame, in the order in which frames are shown, has such pixels.

        Args:
            frame: decoded.
            key: it is a key frame, also if its decoder does not mark it.

        """
        time = _time(frame, math.inf)
        if (key or frame.key_frame) and time > self._lost:
            self._made_up = False
            self._cut = [each for each in self._cut if each >= time]
        if any(each <= time for each in self._cut):
            self._made_up, self._cut = True, [each for each in self._cut if each > time]
        self._made_up |= frame.is_corrupt
        return self._made_up


def _time(timed: Any, unknown: float) -> float:
    return unknown if timed.pts is None else float(timed.pts)


def frames_of(container: Any, stream: Any, lost: Callable[[], None] | None = None) -> Iterator[tuple[Any, bool]]:
    """Yield the frames of a stream of PyAV, decoded in one thread, each with whether a part of it is made up.

    Args:
        container: open, and nothing of it decoded yet.
        stream: of the container.
        lost: is called for each packet that cannot be decoded; the next ones are decoded, as in a player.

    Raises:
        InvalidDataError: a packet cannot be decoded, and there is no ``lost``.

    """
    from av.error import InvalidDataError

    # Threads by frame delay video by a frame each, and tell of damage as much later: it would cost sound frames, the
    # more the more cores there are, and those that are in the threads at the end. Threads by slice do not tell.
    stream.codec_context.thread_count = 1
    damage, jpeg = Damage(), stream.codec_context.name == "mjpeg"
    # Some decoders, such as QuickTime Animation's and CineForm's, mark no key frame. They have no delay, so each frame
    # is that of its packet, which is marked. Those with delay mark theirs, and know better: a packet of H.264 also
    # counts as a key where its picture is only whole some frames later.
    at_once = not stream.codec_context.codec.delay
    for packet in container.demux(stream):
        if packet.is_corrupt or (jpeg and packet.size and END not in bytes(packet)[-TAIL:]):
            damage.cut(packet)
        try:
            frames = packet.decode()
        except InvalidDataError:
            if lost is None:
                raise
            damage.lose(packet)
            lost()
        else:
            key = at_once and packet.is_keyframe
            yield from ((frame, damage.shows_in(frame, key=key)) for frame in frames)


def display_matrix(frame: Any) -> Matrix | None:
    """Return the first five numbers of the display matrix of a decoded frame, None if it has none.

    Ask the first frame of a stream only: in PyAV 18, ``side_data`` and its frame refer to each other, so that each
    frame stays in memory until the garbage collector runs.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else tuple(int(each) for each in np.frombuffer(bytes(matrix), np.int32)[:5])


def upright(frame: Any, matrix: Matrix | None) -> Pixels:
    """Return a decoded frame of PyAV as uint8 RGB (H, W, 3), as a player shows it with this display matrix."""
    if frame.colorspace == UNSPECIFIED and frame.height > SD_ROWS:
        frame.colorspace = BT709
    pixels = frame.to_ndarray(format="rgb24")
    if matrix is None:
        return np.asarray(pixels)
    a, b, _, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    across, down = (c, b) if turned else (a, d)
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def raw_picture(pixels: Pixels) -> RawPicture:
    """Return uint8 RGB pixels (H, W, 3) as a raw picture."""
    height, width, _ = pixels.shape
    return RawPicture(PixelFormat.RGB24, width, height, 3 * width, pixels.tobytes())
