#!/usr/bin/env bash
# A clip that was cut from a video without coding it again, in decord, decord2 and PyAV.
#
# Guess:   len(reader) is the number of frames that a player shows, reader[n] is the frame with the number n, and
#          get_frame_timestamp(n) is when it is shown.
# Truth:   a cut behind a key frame keeps the frames from that key frame on, and hides them by an edit list. decord and
#          decord2 decode only the others, as PyAV and the program ffmpeg do, but count all: after the last frame, that
#          frame is repeated, once for each hidden one. The times are those of the counted ones: the first frame shown
#          has the time of the hidden key frame, below 0. Only where they are many, a warning speaks of "frames
#          corrupted and recovered".
# Versions: decord 0.6.0, decord2 3.4.0, av 18.1.0, imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2), numpy 2.4.6
# Matters: examinations are cut so, with `ffmpeg -ss ... -c copy`. Who takes frames at equal steps of len(reader), as for
#          training sets, gets the end several times, and masks by these times lie before the frames that they belong to.
#          docs/python.md says so.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
install() { venv/bin/pip --disable-pip-version-check install -q av==18.1.0 imageio-ffmpeg==0.8.1 numpy==2.4.6 "$@"; }
cat > look.py <<'PYTHON'
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version

import av
import decord
import imageio_ffmpeg
import numpy as np

FRAMES, KEY, SIDE, RATE = 100, 50, 256, 25
FIRST = 65  # of the clip, 15 frames behind a key frame
BITS = 8


def frame(number: int) -> np.ndarray:
    made = np.zeros((SIDE, SIDE, 3), np.uint8)
    for bit in range(BITS):
        made[:, bit * SIDE // BITS : (bit + 1) * SIDE // BITS] = 255 * (number >> bit & 1)
    return made


def number(pixels: np.ndarray) -> int:
    columns = pixels.mean(axis=(0, 2)).reshape(BITS, -1).mean(axis=1)
    return sum(1 << bit for bit in range(BITS) if columns[bit] > 127)


def record(name: str) -> None:
    with av.open(name, "w") as muxer:
        options = {"crf": "10", "g": str(KEY), "sc_threshold": "0"}
        track = muxer.add_stream("libx264", rate=RATE, options=options)
        track.width, track.height, track.pix_fmt = SIDE, SIDE, "yuv420p"
        for each in range(FRAMES):
            made = av.VideoFrame.from_ndarray(frame(each), format="rgb24")
            made.pts, made.time_base = each, Fraction(1, RATE)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


record("examination.mp4")
cut = ["-ss", str(FIRST / RATE), "-i", "examination.mp4", "-t", "1", "-c", "copy", "clip.mp4"]
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *cut], check=True)
with av.open("clip.mp4") as container:
    shown = [(number(each.to_ndarray(format="rgb24")), round(each.time, 2)) for each in container.decode(video=0)]
reader = decord.VideoReader("clip.mp4")
seen = [number(reader[index].asnumpy()) for index in range(len(reader))]
first = round(float(reader.get_frame_timestamp(0)[0]), 2)
print("PyAV:", len(shown), "frames,", shown[0][0], "to", shown[-1][0], "from", shown[0][1], "s")
print(sys.argv[1], version(sys.argv[1]), "counts", len(reader), "from", first, "s:", *seen)
hidden, numbers = FIRST - KEY, [each for each, _ in shown]
right = numbers[0] == FIRST and shown[0][1] == 0 and seen == numbers + [numbers[-1]] * hidden
sys.exit(not (right and first == -hidden / RATE))
PYTHON
for package in decord==0.6.0 decord2==3.4.0; do
  install "$package"
  venv/bin/python look.py "${package%==*}"
  venv/bin/pip uninstall -q -y "${package%==*}"
done
