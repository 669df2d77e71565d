#!/usr/bin/env bash
# MP4 with a clean aperture (the box `clap`, ISO/IEC 14496-12, 12.1.4), in readers that are all built on FFmpeg.
#
# Guess:   libraries on FFmpeg agree on the size of a frame and on what lies at a pixel of it: all crop, or none does.
# Truth:   the program ffmpeg crops, also for imageio. PyAV, OpenCV and decord2 show the whole frame: only the program
#          looks at the crop, and PyAV has no attribute for it. moviepy and deffcode, which read the size from the
#          program's log and ask it for pixels of that size, get the cropped part enlarged to the size of the whole
#          frame. So the size agrees with PyAV's, and each pixel lies elsewhere. Neither of the two warns.
# Versions: imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2), imageio 2.38.1, moviepy 2.2.1, deffcode 0.2.8, av 18.1.0,
#          opencv-python-headless 5.0.0.93, decord2 3.4.0, numpy 2.4.6
# Matters: QuickTime files of PAL and NTSC mark their edges in this way (Apple's TN2162). Masks of such a recording do not
#          lie on the frames that another of these programs shows, and training pairs of both do not fit. The service
#          reads whole frames, as docs/command-line.md says.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q imageio-ffmpeg==0.8.1 imageio==2.38.1 moviepy==2.2.1 \
  deffcode==0.2.8 av==18.1.0 opencv-python-headless==5.0.0.93 decord2==3.4.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2> log
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import av
import cv2
import decord
import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
from deffcode import FFdecoder
from moviepy import VideoFileClip

WIDTH, HEIGHT, FRAMES = 720, 576, 5
CLEAN_WIDTH, CLEAN_HEIGHT = 640, 480  # around the centre
LEFT, TOP = (WIDTH - CLEAN_WIDTH) // 2, (HEIGHT - CLEAN_HEIGHT) // 2
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def record(name: str) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
    picture[100:200, 100:250] = 240
    picture[400:500, 500:640] = 20
    with av.open(name, "w") as muxer:
        track = muxer.add_stream("libx264", rate=25, options={"crf": "10"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(FRAMES):
            muxer.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        muxer.mux(track.encode())


def with_aperture(data: bytes) -> bytes:
    """Append the box to the description of the track; the index lies behind the pictures, so that no offset moves."""
    aperture = struct.pack(">I4s8I", 40, b"clap", CLEAN_WIDTH, 1, CLEAN_HEIGHT, 1, 0, 1, 0, 1)
    made = bytearray(data)
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4])
    made[end:end] = aperture
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = (entry + 4 if kind == b"avc1" else data.index(kind)) - 4
        made[start : start + 4] = struct.pack(">I", int.from_bytes(data[start : start + 4]) + len(aperture))
    return bytes(made)


def by_pyav(name: str) -> np.ndarray:
    with av.open(name) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def by_program(name: str) -> np.ndarray:
    command = [FFMPEG, "-v", "error", "-i", name, "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-"]
    made = subprocess.run(command, check=True, capture_output=True).stdout
    return cv2.imdecode(np.frombuffer(made, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def by_deffcode(name: str) -> np.ndarray:
    decoder = FFdecoder(name, custom_ffmpeg=FFMPEG).formulate()
    try:
        return next(decoder.generateFrame()).copy()
    finally:
        decoder.terminate()


READERS = {
    "PyAV": by_pyav,
    "OpenCV": lambda name: cv2.VideoCapture(name, cv2.CAP_FFMPEG).read()[1][..., ::-1],
    "decord2": lambda name: decord.VideoReader(name)[0].asnumpy(),
    "ffmpeg": by_program,
    "imageio": lambda name: next(imageio.imiter(name, plugin="FFMPEG")),
    "moviepy": lambda name: VideoFileClip(name).get_frame(0),
    "deffcode": by_deffcode,
}


def kind(seen: np.ndarray, whole: np.ndarray) -> str:
    part = whole[TOP : TOP + CLEAN_HEIGHT, LEFT : LEFT + CLEAN_WIDTH]
    shapes = {"whole": whole, "cropped": part, "enlarged": cv2.resize(part, (WIDTH, HEIGHT))}
    return next((name for name, each in shapes.items() if each.shape == seen.shape and near(seen, each)), "other")


def near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one.astype(int) - other).mean() < 1)


names = "imageio-ffmpeg imageio moviepy deffcode av opencv-python-headless decord2 numpy".split()
print(*(f"{name} {version(name)}" for name in names), "FFmpeg", imageio_ffmpeg.get_ffmpeg_version())
record("plain.mp4")
Path("aperture.mp4").write_bytes(with_aperture(Path("plain.mp4").read_bytes()))
whole = by_pyav("plain.mp4")
found = {}
for name in ("plain.mp4", "aperture.mp4"):
    frames = {reader: read(name) for reader, read in READERS.items()}
    found[name] = {reader: kind(frame, whole) for reader, frame in frames.items()}
    sizes = (f"{reader} {frame.shape[1]}x{frame.shape[0]} {found[name][reader]}" for reader, frame in frames.items())
    print(f"{name}:", *sizes, sep="\n  ")
expected = ["whole", "whole", "whole", "cropped", "cropped", "enlarged", "enlarged"]
sys.exit(set(found["plain.mp4"].values()) != {"whole"} or list(found["aperture.mp4"].values()) != expected)
PYTHON
