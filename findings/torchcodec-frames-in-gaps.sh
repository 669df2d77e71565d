#!/usr/bin/env bash
# Which frame torchcodec says is on the screen where frames are missing or late.
#
# Guess:   until the next frame comes, a player shows the last one. So get_frame_played_at(t) gives it for each time
#          between the two, as get_frames_played_at([t]) does.
# Truth:   the first of the two functions asks whether t lies within the frame's own duration. Matroska, WebM and transport
#          streams have none, and FFmpeg makes it up from the frame rate; in MP4 with B-frames it has the same value. Behind
#          that time the function gives the next frame, which nobody has seen yet, though it says "played at". The other
#          one gives the last frame. With seek_mode="approximate", both give the next. They agree in MP4 without
#          B-frames, where the last frame's duration covers the gap. Nothing warns; pts_seconds is later than t.
# Versions: torchcodec 0.17.0, torch 2.15.0, av 18.1.0, whose FFmpeg (8) both use here, numpy 2.4.6; the same with
#          FFmpeg 5.1.9 of Debian 12
# Matters: recorders pause while an image is frozen, and browsers and capture programs record frames as they come. A mask
#          for the time of a report then is of a later frame. docs/python.md says to ask for several times at once.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  torchcodec==0.17.0 torch==2.15.0 av==18.1.0 numpy==2.4.6
cd "$folder"
# torchcodec looks for FFmpeg by its usual names; PyAV's wheel holds it under others.
for library in venv/lib/python3*/site-packages/av.libs/lib{av,sw}*; do
  name=$(basename "$library")
  ln -s "$(realpath "$library")" "${name%%-*}.so.$(sed -E 's/.*\.so\.([0-9]+).*/\1/' <<<"$name")"
done
LD_LIBRARY_PATH=$folder venv/bin/python - <<'PYTHON' 2> log
import sys
from fractions import Fraction
from importlib.metadata import version

import av
import numpy as np
import torchcodec
from torchcodec.decoders import VideoDecoder

FRAMES, RATE, PAUSE = 50, 25, 15  # 15 frames are missing behind the 20th, from 0.8 s to 1.4 s
INSIDE = [0.79, 0.9, 1.3]


def record(name: str, b_frames: int) -> None:
    with av.open(name, "w") as muxer:
        track = muxer.add_stream("libx264", rate=RATE, options={"bf": str(b_frames)})
        track.width, track.height, track.pix_fmt = 320, 240, "yuv420p"
        for number in range(FRAMES):
            made = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 4 * number, np.uint8), format="rgb24")
            made.pts, made.time_base = number + (PAUSE if number >= 20 else 0), Fraction(1, RATE)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


def look(name: str, mode: str) -> tuple[list[float], list[float]]:
    """Return the times of the frames that each function gives for the times INSIDE."""
    decoder = VideoDecoder(name, seek_mode=mode)
    start = decoder.metadata.begin_stream_seconds
    times = [start + each for each in INSIDE]
    single = [round(decoder.get_frame_played_at(each).pts_seconds - start, 2) for each in times]
    several = [round(each - start, 2) for each in decoder.get_frames_played_at(times).pts_seconds.tolist()]
    print(f"{name}, {mode}: on the screen at {INSIDE} s, one by one {single}, together {several}")
    return single, several


print(*(f"{name} {version(name)}" for name in ("torchcodec", "torch", "av", "numpy")), end=" ")
print("FFmpeg", torchcodec.ffmpeg_major_version)
LAST, NEXT = [0.76] * 3, [0.76, 1.4, 1.4]
record("b-frames.mp4", 3)
record("b-frames.mkv", 3)
record("plain.mkv", 0)
record("plain.ts", 0)
record("plain.mp4", 0)
found = [look(name, "exact") for name in ("b-frames.mp4", "b-frames.mkv", "plain.mkv", "plain.ts")]
right = found == [(NEXT, LAST)] * 4
right &= look("b-frames.mkv", "approximate") == (NEXT, NEXT)
right &= look("plain.mp4", "exact") == (LAST, LAST)
sys.exit(not right)
PYTHON
