#!/usr/bin/env bash
# Video files with cover art, in readers that take the first track of video.
#
# Guess:   a cover in the tags of a file is no track, or the last one: track 0 of the video is the film.
# Truth:   FFmpeg makes a track of video of each cover, with one frame, and numbers tracks as it meets them. In Windows
#          Media the tags (WM/Picture) come before the tracks, and so does the cover, always. In MP4 it depends on where
#          the writer put the box `udta` (ISO/IEC 14496-12 lets it choose). PyAV's decode(video=0), OpenCV's VideoCapture
#          and imageio's plugin for PyAV then show one frame, the cover, without a word. PyAV's streams.best("video"),
#          the program ffmpeg and decord2 take the film; decord2 refuses the Windows Media one.
# Versions: av 18.1.0, opencv-python-headless 5.0.0.93, imageio 2.38.1, imageio-ffmpeg 0.8.1, decord2 3.4.0, numpy 2.4.6
# Matters: an examination in such a file was segmented as one picture, which is none of its frames, without an error. The
#          service now asks FFmpeg for the best track, and takes no cover for it.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q av==18.1.0 opencv-python-headless==5.0.0.93 \
  imageio==2.38.1 imageio-ffmpeg==0.8.1 decord2==3.4.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2> errors
import struct
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import av
import cv2
import decord
import imageio.v3 as imageio
import numpy as np

FRAMES, WIDTH, HEIGHT = 10, 320, 240
COVER = cv2.imencode(".jpg", np.full((100, 160, 3), 120, np.uint8))[1].tobytes()
EXTENDED_CONTENT = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")  # GUID of the object with the tags


def record(name: str, codec: str) -> bytes:
    with av.open(name, "w") as muxer:
        track = muxer.add_stream(codec, rate=25)
        track.width, track.height, track.pix_fmt, track.bit_rate = WIDTH, HEIGHT, "yuv420p", 2_000_000
        for number in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
            picture[100:150, 20 * number : 20 * number + 60] = 240
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            muxer.mux(track.encode(frame))
        muxer.mux(track.encode())
    return Path(name).read_bytes()


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def covered_mp4(data: bytes, *, first: bool) -> bytes:
    """Add a cover to the index of an MP4, which lies at its end."""
    start = data.index(b"moov") - 4
    header = start + 8 + int.from_bytes(data[start + 8 : start + 12])
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    tags = box(b"ilst", box(b"covr", box(b"data", struct.pack(">II", 13, 0), COVER)))
    user = box(b"udta", box(b"meta", bytes(4), handler, tags))
    tracks = data[header:]
    content = (user, tracks) if first else (tracks, user)
    return data[:start] + box(b"moov", data[start + 8 : header], *content)


def covered_wmv(data: bytes) -> bytes:
    """Add the attribute WM/Picture to Windows Media."""

    def text(words: str) -> bytes:
        return f"{words}\0".encode("utf-16le")

    name = text("WM/Picture")
    picture = struct.pack("<BI", 3, len(COVER)) + text("image/jpeg") + text("") + COVER
    attributes = struct.pack("<HH", 1, len(name)) + name + struct.pack("<HH", 1, len(picture)) + picture
    added = EXTENDED_CONTENT + struct.pack("<Q", 24 + len(attributes)) + attributes
    size, objects = struct.unpack_from("<QI", data, 16)
    return data[:16] + struct.pack("<QI", size + len(added), objects + 1) + data[28:30] + added + data[30:]


def by_pyav(name: str, *, best: bool = False) -> tuple[int, int]:
    with av.open(name) as container:
        track = container.streams.best("video") if best else container.streams.video[0]
        frames = list(container.decode(track))
    return len(frames), frames[0].width


def by_opencv(name: str) -> tuple[int, int]:
    capture, widths = cv2.VideoCapture(name, cv2.CAP_FFMPEG), []
    while (read := capture.read())[0]:
        widths.append(read[1].shape[1])
    return len(widths), widths[0]


def by_imageio(name: str, plugin: str) -> tuple[int, int]:
    frames = list(imageio.imiter(name, plugin=plugin))
    return len(frames), frames[0].shape[1]


def by_decord(name: str) -> tuple[int, int] | str:
    try:
        reader = decord.VideoReader(name)
    except decord.DECORDError:
        return "refused"
    return len(reader), reader[0].shape[1]


print(*(f"{name} {version(name)}" for name in "av opencv-python-headless imageio imageio-ffmpeg decord2 numpy".split()))
mp4 = record("plain.mp4", "libx264")
Path("last.mp4").write_bytes(covered_mp4(mp4, first=False))
Path("first.mp4").write_bytes(covered_mp4(mp4, first=True))
Path("windows.wmv").write_bytes(covered_wmv(record("plain.wmv", "wmv2")))
FILM, ART = (FRAMES, WIDTH), (1, 160)
right = True
for name in ("plain.mp4", "plain.wmv", "last.mp4", "first.mp4", "windows.wmv"):
    found = {
        "PyAV, video=0": by_pyav(name),
        "PyAV, best": by_pyav(name, best=True),
        "OpenCV": by_opencv(name),
        "imageio, pyav": by_imageio(name, "pyav"),
        "imageio, FFMPEG": by_imageio(name, "FFMPEG"),
        "decord2": by_decord(name),
    }
    print(f"{name}: frames and their width:", found)
    shown = ART if name in ("first.mp4", "windows.wmv") else FILM
    expected = [shown, FILM, shown, shown, FILM, "refused" if name == "windows.wmv" else FILM]
    right &= list(found.values()) == expected
sys.exit(not right)
PYTHON
