#!/usr/bin/env bash
# Frames by time in moviepy, for an MP4 file in which a recorder paused.
#
# Guess:   clip.get_frame(t) gives the frame that a player shows at t, within the length of a frame; clip.fps is the rate at
#          which the recorder took frames.
# Truth:   clip.fps is the mean over the whole file, pause included: 19.23 for 25 frames a second and a pause of 0.6 s.
#          Frames come at wrong times everywhere: before the pause up to 0.16 s too early, behind it half a second.
#          iter_frames() gives 49 frames for the 50 of the file, among them only 34 different ones. In Matroska, whose
#          header states the rate, get_frame(t) is right. Nothing warns.
# Versions: moviepy 2.2.1, imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2), av 18.1.0, numpy 2.4.6
# Matters: recorders pause while an image is frozen, and capture programs leave frames out. Masks that are laid over a video
#          with moviepy, by the times of the service, then run beside the polyps. docs/python.md says so.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  moviepy==2.2.1 imageio-ffmpeg==0.8.1 av==18.1.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2> log
import sys
from fractions import Fraction
from importlib.metadata import version

import av
import moviepy
import numpy as np

FRAMES, RATE, PAUSE = 50, 25, 15  # 15 frames are missing behind the 20th, from 0.8 s to 1.4 s
TIMES = [0.22, 0.5, 0.74, 1.5, 2.02, 2.5]
WIDTH, HEIGHT = 320, 240


def moment(number: int) -> int:
    return number + (PAUSE if number >= 20 else 0)


def frame(number: int) -> np.ndarray:
    made = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
    made[100:200, 5 * number : 5 * number + 70] = 240
    return made


def record(name: str) -> None:
    with av.open(name, "w") as muxer:
        track = muxer.add_stream("libx264", rate=RATE, options={"bf": "0"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            made = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            made.pts, made.time_base = moment(number), Fraction(1, RATE)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


def place(picture: np.ndarray) -> int:
    """Return the number of the frame that a picture shows."""
    return int(np.argmin([np.abs(picture.astype(int) - frame(number)).mean() for number in range(FRAMES)]))


def look(name: str) -> tuple[list[int], float, int]:
    """Return the frames that moviepy shows at the TIMES, its rate, and how many it gives in order."""
    shown = []
    for each in TIMES:
        clip = moviepy.VideoFileClip(name)
        shown.append(place(clip.get_frame(each)))
        clip.close()
    clip = moviepy.VideoFileClip(name)
    in_order = [place(each) for each in clip.iter_frames()]
    found = shown, clip.fps, len(set(in_order))
    print(f"{name}: rate {clip.fps}; at {TIMES} s frames {shown}; in order {len(in_order)}, of them different {found[2]}")
    clip.close()
    return found


print(*(f"{name} {version(name)}" for name in ("moviepy", "imageio-ffmpeg", "av", "numpy")))
record("pause.mp4")
record("pause.mkv")
with av.open("pause.mp4") as container:
    assert [round(each.time * RATE) for each in container.decode(video=0)] == [moment(each) for each in range(FRAMES)]
right = [max(number for number in range(FRAMES) if moment(number) <= each * RATE) for each in TIMES]
print(f"a player shows {right}")
found = look("pause.mp4"), look("pause.mkv")
sys.exit(found != (([4, 9, 14, 19, 23, 33], 19.23, 34), (right, RATE, FRAMES)))
PYTHON
