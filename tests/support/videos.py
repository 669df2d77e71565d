"""Videos for tests, with known pictures and times."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from model.transforms import Pixels

TKHD_MATRIX = 44  # bytes from the name of an MP4's track header (version 0) to its matrix (ISO/IEC 14496-12, 8.3.2)


def write(
    path: Path,
    pictures: Iterable[Image.Image | Pixels],
    *,
    times: Sequence[int] = (),
    time_base: Fraction = Fraction(1, 25),
    matrix: int | None = None,
    gop: int = 250,
    b_frames: int = 0,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write a lossless-looking H.264 video.

    Args:
        path: the file.
        pictures: RGB, with even sides.
        times: presentation times in units of ``time_base``; by default one unit a frame.
        time_base: seconds.
        matrix: of ITU-T H.273, converted and tagged; None: BT.601 without a tag.
        gop: frames from a key frame to the next.
        b_frames: how many in a row refer to later frames.
        pixel_aspect: width of a pixel by its height; None: not said.

    """
    with av.open(str(path), "w") as container:
        options = {"crf": "1", "preset": "ultrafast", "g": str(gop), "bf": str(b_frames), "b-adapt": "0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.codec_context.time_base = time_base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if not number:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709" if matrix == 1 else "ITU601")
            frame.pts, frame.time_base = times[number] if times else number, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Set the display matrix of an MP4, in whole numbers."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + TKHD_MATRIX
    data[place : place + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def covered(path: Path, picture: bytes, *, tracks: bool = True) -> Path:
    """Put a JPEG into an MP4 as its cover art, before the tracks, as the standard allows.

    Args:
        path: an MP4 whose index lies behind the pictures.
        picture: JPEG.
        tracks: keep the tracks.

    """
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    art = _box(b"data", struct.pack(">II", 13, 0), picture)  # 13: JPEG
    handler = _box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    user = _box(b"udta", _box(b"meta", bytes(4), handler, _box(b"ilst", _box(b"covr", art))))
    first = start + 8 + int.from_bytes(data[start + 8 : start + 12])  # behind mvhd
    path.write_bytes(data[:start] + _box(b"moov", data[start + 8 : first], user, data[first:] if tracks else b""))
    return path


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def read(path: Path) -> tuple[list[Pixels], list[float], Any]:
    """Return frames as RGB by their tags, presentation times in seconds, and the video stream's facts."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(stream)]
        context = stream.codec_context
        facts = {
            "tags": (context.colorspace, context.color_primaries, context.color_trc, context.color_range),
            "pixel_aspect": stream.sample_aspect_ratio,
            "seconds": float(container.duration / av.time_base),
            "kinds": [each.type for each in container.streams],
        }
    return [pixels for pixels, _ in frames], [time for _, time in frames], facts
