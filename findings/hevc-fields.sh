#!/usr/bin/env bash
# Interlaced HEVC, whose fields are pictures of their own, in PyAV, decord2 and the program ffmpeg behind imageio.
#
# Guess:   a reader gives frames of interlaced HEVC as it does of interlaced MPEG-2 and H.264: both fields in one picture,
#          of the full height, 25 a second for 576i and 1080i.
# Truth:   HEVC has no coding for two fields in one frame as H.264 has: encoders code each field as a picture, and only
#          SEI says that two of them belong together. FFmpeg does not join them: all three give pictures of half the
#          height, 50 a second, twice as many as frames, and the file's header has half the height, too. PyAV marks each
#          as interlaced; the other two say nothing.
# Versions: av 18.1.0, decord2 3.4.0, imageio 2.38.1, imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2), numpy 2.4.6
# Matters: masks of such a recording have half the height of its frames, and number n is not that of frame n. A DICOM
#          video whose object counts frames does not fit its own stream. The service gives a mask for each field;
#          docs/command-line.md says so.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  av==18.1.0 decord2==3.4.0 imageio==2.38.1 imageio-ffmpeg==0.8.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2> log
import sys
from fractions import Fraction
from importlib.metadata import version

import av
import decord
import imageio.v3 as imageio
import numpy as np

FRAMES, WIDTH, HEIGHT = 10, 720, 576


def frame(number: int) -> np.ndarray:
    made = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
    made[200:300, 60 * number : 60 * number + 100] = 240
    return made


def record(name: str, codec: str, options: dict[str, str], pictures: list[np.ndarray], rate: int) -> None:
    with av.open(name, "w") as muxer:
        track = muxer.add_stream(codec, rate=rate, options=options)
        track.height, track.width, _ = pictures[0].shape
        track.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            made = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            made.pts, made.time_base = number, Fraction(1, rate)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


def look(name: str, pictures: list[np.ndarray]) -> list[tuple[int, int]]:
    """Return how many pictures each reader gives, and their height."""
    with av.open(name) as container:
        shown = list(container.decode(video=0))
    assert all(frame.interlaced_frame for frame in shown)
    reader = decord.VideoReader(name)
    seen = {
        "PyAV": [frame.to_ndarray(format="rgb24") for frame in shown],
        "decord2": [reader[index].asnumpy() for index in range(len(reader))],
        "imageio": list(imageio.imiter(name, plugin="FFMPEG")),
    }
    for each in seen.values():
        assert all(near(one, other) for one, other in zip(each, pictures, strict=True))
    found = {each: (len(some), some[0].shape[0]) for each, some in seen.items()}
    print(f"{name}: pictures and their rows:", found)
    return list(found.values())


def near(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one.astype(int) - other).mean() < 5)


print(*(f"{name} {version(name)}" for name in ("av", "decord2", "imageio", "imageio-ffmpeg", "numpy")))
frames = [frame(number) for number in range(FRAMES)]
fields = [each[row::2] for each in frames for row in (0, 1)]
record("h264.mp4", "libx264", {"crf": "10", "x264-params": "interlaced=1:tff=1"}, frames, 25)
record("hevc.mp4", "libx265", {"crf": "10", "x265-params": "interlace=tff:log-level=none"}, fields, 50)
right = look("h264.mp4", frames) == [(FRAMES, HEIGHT)] * 3
right &= look("hevc.mp4", fields) == [(2 * FRAMES, HEIGHT // 2)] * 3
sys.exit(not right)
PYTHON
