#!/usr/bin/env bash
# Frames by number in torchcodec: transport streams, program streams and AVI with B-frames.
#
# Guess:   in the default seek mode, "exact", which scans the whole file first, get_frame_at(n) is frame n of the file, in
#          each container, and get_all_frames() gives as many frames as the decoder counts.
# Truth:   the count is right. But torchcodec seeks before each access, and in containers without an index FFmpeg lands
#          behind the wanted frame if B-frames put its decoding time before its presentation time. In a transport stream
#          of H.264, every number in the first GOP gives the first frame of the second one. Frames of the last GOP and
#          get_all_frames() raise "Requested next frame while there are no more frames left to decode", and so does every
#          access if there is only one GOP. It is so for HEVC, too. MPEG-2, also in a program stream, gives wrong frames
#          here and there. In AVI with H.264, frame n is frame n-2, behind the first one. Only pts_seconds tells which
#          frame came. Without B-frames, and in MP4 and Matroska, all is right. PyAV, on the same FFmpeg, reads every
#          frame in order.
# Versions: torchcodec 0.17.0, torch 2.15.0, av 18.1.0, whose FFmpeg (8) both use here, numpy 2.4.6; the same with
#          FFmpeg 5.1.9 of Debian 12
# Matters: capture boxes record transport streams, and DICOM keeps video as such. Training pairs and masks by frame number
#          belong to frames half a second later, without an error. docs/python.md says to read such files in order.
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

FRAMES, GOP, WIDTH, HEIGHT = 48, 12, 320, 240
END = "no more frames left"


def frame(number: int) -> np.ndarray:
    made = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
    made[100:200, 5 * number : 5 * number + 80] = 240
    return made


def record(name: str, codec: str, b_frames: int, gop: int = GOP) -> None:
    """Write all frames, with key frames `gop` apart."""
    options = {"bf": str(b_frames), "g": str(gop), "sc_threshold": "0"}
    options["x265-params"] = f"bframes={b_frames}:keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:log-level=none"
    with av.open(name, "w") as muxer:
        track = muxer.add_stream(codec, rate=25, options=options)
        track.width, track.height, track.pix_fmt, track.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for number in range(FRAMES):
            made = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            made.pts, made.time_base = number, Fraction(1, 25)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


def place(picture: np.ndarray) -> int:
    """Return the number of the frame that a picture shows."""
    return int(np.argmin([np.abs(picture.astype(int) - frame(number)).mean() for number in range(FRAMES)]))


def shown(name: str, number: int) -> int | str:
    try:
        return place(VideoDecoder(name, dimension_order="NHWC").get_frame_at(number).data.numpy())
    except RuntimeError as error:
        return "none" if END in str(error) else str(error)


def all_frames(name: str) -> list[int] | str:
    try:
        return [place(each.numpy()) for each in VideoDecoder(name, dimension_order="NHWC").get_all_frames().data]
    except RuntimeError as error:
        return "none" if END in str(error) else str(error)


def in_order(name: str) -> list[int]:
    with av.open(name) as container:
        return [place(each.to_ndarray(format="rgb24")) for each in container.decode(video=0)]


def look(name: str) -> tuple[list[int | str], list[int] | str]:
    """Return what the numbers 0, 5, 15, 30 and 40 show, and all frames."""
    assert len(VideoDecoder(name)) == FRAMES
    assert in_order(name) == list(range(FRAMES))
    found = [shown(name, number) for number in (0, 5, 15, 30, 40)]
    everything = all_frames(name)
    print(f"{name}: frames 0, 5, 15, 30, 40 show {found};", "all are right" if everything == EVERY else "not all come")
    return found, everything


print(*(f"{name} {version(name)}" for name in ("torchcodec", "torch", "av", "numpy")), end=" ")
print("FFmpeg", torchcodec.ffmpeg_major_version)
EVERY = list(range(FRAMES))
RIGHT = ([0, 5, 15, 30, 40], EVERY)
record("h264.mp4", "libx264", 3)
record("h264.mkv", "libx264", 3)
record("no-b-frames.ts", "libx264", 0)
record("h264.ts", "libx264", 3)
record("one-gop.ts", "libx264", 3, gop=100)
record("hevc.ts", "libx265", 3)
record("mpeg2.ts", "mpeg2video", 2)
record("mpeg2.mpg", "mpeg2video", 2)
record("h264.avi", "libx264", 3)
right = [look(name) == RIGHT for name in ("h264.mp4", "h264.mkv", "no-b-frames.ts")] == [True] * 3
right &= look("h264.ts") == ([12, 12, 24, 36, "none"], "none")
right &= look("one-gop.ts") == (["none"] * 5, "none")
right &= look("hevc.ts") == ([12, 12, 24, 36, "none"], "none")
right &= look("mpeg2.ts")[0] != RIGHT[0]
right &= look("mpeg2.mpg")[0] != RIGHT[0]
right &= look("h264.avi") == ([0, 3, 13, 28, 38], "none")
sys.exit(not right)
PYTHON
