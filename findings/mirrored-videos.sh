#!/usr/bin/env bash
# Videos whose header says that a player has to mirror them: OpenCV, decord2, PyAV and the program ffmpeg.
#
# Guess:   readers that turn a video as its display matrix says (ISO/IEC 14496-12, 8.3.2) mirror it, too, as the program
#          ffmpeg does.
# Truth:   OpenCV and decord2 reduce the matrix to an angle, as PyAV's frame.rotation does. A video to be mirrored left to
#          right is turned by 180 degrees: upside down, and not mirrored. One to be mirrored upside down is shown as it is
#          stored. Mirrored and turned by 90 degrees, it is turned only. Sizes are right, and nothing warns. For videos
#          that are only turned, all agree.
# Versions: opencv-python-headless 5.0.0.93, decord2 3.4.0, av 18.1.0, imageio 2.38.1, imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2),
#          numpy 2.4.6
# Matters: endoscopes with a prism or an adapter, and cameras before a monitor, record mirrored pictures; `ffmpeg
#          -display_hflip` corrects a file without coding it again. Masks of such a reader do not lie on the polyps that a
#          player shows. The service mirrors as a player does; docs/python.md says so.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q opencv-python-headless==5.0.0.93 decord2==3.4.0 \
  av==18.1.0 imageio==2.38.1 imageio-ffmpeg==0.8.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2> log
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version

import av
import cv2
import decord
import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np

WIDTH, HEIGHT = 320, 240
stored = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
stored[20:80, 20:140] = 240
stored[160:220, 40:70] = 20


def record(name: str) -> None:
    with av.open(name, "w") as muxer:
        track = muxer.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(3):
            made = av.VideoFrame.from_ndarray(stored, format="rgb24")
            made.pts, made.time_base = number, Fraction(1, 25)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


def mark(name: str, *options: str) -> None:
    """Copy the video with another display matrix."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", *options, "-i", "plain.mp4", "-c", "copy", name]
    subprocess.run(command, check=True, capture_output=True)


WAYS = {
    "as stored": lambda picture: picture,
    "turned by 90": lambda picture: np.rot90(picture, 1),
    "turned by 180": lambda picture: np.rot90(picture, 2),
    "turned by 270": lambda picture: np.rot90(picture, 3),
    "left to right": lambda picture: picture[:, ::-1],
    "upside down": lambda picture: picture[::-1],
    "about a diagonal": lambda picture: picture.transpose(1, 0, 2),
    "about the other": lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
}


def way(picture: np.ndarray) -> str:
    """Return how the stored picture became this one."""
    near = {name: each(stored) for name, each in WAYS.items()}
    found = [name for name, each in near.items() if each.shape == picture.shape and differ(each, picture) < 5]
    return found[0] if len(found) == 1 else f"none of them: {found}"


def differ(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def look(name: str) -> tuple[str, str, str, int]:
    """Return what ffmpeg, OpenCV and decord2 show, and the angle that PyAV names."""
    ffmpeg = next(iter(imageio.imiter(name, plugin="FFMPEG")))
    by_opencv = cv2.VideoCapture(name).read()[1][:, :, ::-1]
    by_decord = decord.VideoReader(name)[0].asnumpy()
    with av.open(name) as container:
        angle = next(container.decode(video=0)).rotation
    found = way(ffmpeg), way(by_opencv), way(by_decord), angle
    print(f"{name}: ffmpeg {found[0]}; OpenCV {found[1]}; decord2 {found[2]}; PyAV's rotation {angle}")
    return found


packages = ("opencv-python-headless", "decord2", "av", "imageio", "imageio-ffmpeg", "numpy")
print(*(f"{name} {version(name)}" for name in packages))
record("plain.mp4")
found = {}
for name, options in {
    "turned.mp4": ("-display_rotation", "90"),
    "left-to-right.mp4": ("-display_hflip",),
    "upside-down.mp4": ("-display_vflip",),
    "turned-and-mirrored.mp4": ("-display_rotation", "90", "-display_hflip"),
}.items():
    mark(name, *options)
    found[name] = look(name)
sys.exit(
    list(found.values())
    != [
        ("turned by 90", "turned by 90", "turned by 90", 90),
        ("left to right", "turned by 180", "turned by 180", -180),
        ("upside down", "as stored", "as stored", 0),
        ("about the other", "turned by 90", "turned by 90", 90),
    ]
)
PYTHON
