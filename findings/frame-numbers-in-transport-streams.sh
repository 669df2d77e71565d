#!/usr/bin/env bash
# Frames by number in transport streams and AVI: torchcodec, OpenCV and decord2.
#
# Guess:   a reader that can go to a frame by its number shows the same frame as when it reads in order; torchcodec says
#          so of its default mode, "exact", in which it scans the whole file first.
# Truth:   in a transport stream with B-frames, none does. Each seeks by a time, and FFmpeg, which has no index of such a
#          file, lands behind the frame if its data are stored before the time at which it is shown. Asked for frame 0,
#          all three show the first frame of the second GOP. OpenCV is wrong in the first GOP only. decord2 is a GOP too
#          far from there on. torchcodec gives the next key frame, and for the last GOP, as get_all_frames() does for the
#          whole, raises "Requested next frame while there are no more frames left to decode". In AVI with H.264,
#          torchcodec's frame n is frame n-2, and decord2 mixes frames up. In MP4 and Matroska, and without B-frames, all
#          are right. The count is right everywhere, nothing warns, and whoever reads in order gets each frame.
# Versions: torchcodec 0.17.0, torch 2.15.0, opencv-python-headless 5.0.0.93, decord2 3.4.0, av 18.1.0, whose FFmpeg (8)
#          torchcodec uses here, numpy 2.4.6; with FFmpeg 5.1.9 of Debian 12, torchcodec does the same for H.264
# Matters: capture boxes record transport streams, and DICOM keeps video as such. Training pairs and masks by number
#          belong to a frame up to seconds away. docs/python.md says to read such files in order.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q torchcodec==0.17.0 torch==2.15.0 \
  opencv-python-headless==5.0.0.93 decord2==3.4.0 av==18.1.0 numpy==2.4.6
cd "$folder"
# torchcodec looks for FFmpeg by its usual names; PyAV's wheel holds it under others.
mkdir ffmpeg
for library in venv/lib/python3*/site-packages/av.libs/lib{av,sw}*; do
  name=$(basename "$library")
  ln -s "$(realpath "$library")" "ffmpeg/${name%%-*}.so.$(sed -E 's/.*\.so\.([0-9]+).*/\1/' <<<"$name")"
done
LD_LIBRARY_PATH=$folder/ffmpeg venv/bin/python - <<'PYTHON' 2> log
import sys
from fractions import Fraction
from importlib.metadata import version

import av
import cv2
import decord
import numpy as np
from torchcodec.decoders import VideoDecoder

FRAMES, GOP, WIDTH, HEIGHT = 48, 12, 320, 240
NUMBERS = [0, 5, 15, 30, 40]
END = "no more frames left"


def frame(number: int) -> np.ndarray:
    made = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)
    made[100:200, 5 * number : 5 * number + 80] = 240
    return made


def record(name: str, codec: str, b_frames: int) -> None:
    options = {"bf": str(b_frames), "g": str(GOP), "sc_threshold": "0"}
    options["x265-params"] = f"bframes={b_frames}:keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0:log-level=none"
    with av.open(name, "w") as muxer:
        track = muxer.add_stream(codec, rate=25, options=options)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            made = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            made.pts, made.time_base = number, Fraction(1, 25)
            muxer.mux(track.encode(made))
        muxer.mux(track.encode())


def place(picture: np.ndarray) -> int:
    """Return the number of the frame that a picture shows."""
    return int(np.argmin([np.abs(picture.astype(int) - frame(number)).mean() for number in range(FRAMES)]))


def by_torchcodec(name: str, number: int) -> np.ndarray:
    return VideoDecoder(name, dimension_order="NHWC").get_frame_at(number).data.numpy()


def by_opencv(name: str, number: int) -> np.ndarray:
    reader = cv2.VideoCapture(name)
    reader.set(cv2.CAP_PROP_POS_FRAMES, number)
    found, picture = reader.read()
    if not found:
        raise RuntimeError(END)
    return picture[:, :, ::-1]


def by_decord(name: str, number: int) -> np.ndarray:
    return decord.VideoReader(name)[number].asnumpy()


READERS = {"torchcodec": by_torchcodec, "OpenCV": by_opencv, "decord2": by_decord}


def shown(reader: str, name: str, number: int) -> int | str:
    try:
        return place(READERS[reader](name, number))
    except RuntimeError as error:
        return "none" if END in str(error) else str(error)


def look(name: str) -> dict[str, list[int | str]]:
    """Return what each reader shows for the NUMBERS."""
    with av.open(name) as container:
        assert [place(each.to_ndarray(format="rgb24")) for each in container.decode(video=0)] == list(range(FRAMES))
    assert len(VideoDecoder(name)) == len(decord.VideoReader(name)) == FRAMES
    found = {reader: [shown(reader, name, number) for number in NUMBERS] for reader in READERS}
    print(f"{name}: frames {NUMBERS} are " + "; ".join(f"{reader} {each}" for reader, each in found.items()))
    return found


def all_frames(name: str) -> str:
    try:
        return str(len(VideoDecoder(name).get_all_frames().data))
    except RuntimeError as error:
        return "none" if END in str(error) else str(error)


packages = ("torchcodec", "torch", "opencv-python-headless", "decord2", "av", "numpy")
print(*(f"{name} {version(name)}" for name in packages))
record("h264.mp4", "libx264", 3)
record("h264.mkv", "libx264", 3)
record("no-b-frames.ts", "libx264", 0)
record("h264.ts", "libx264", 3)
record("hevc.ts", "libx265", 3)
record("h264.avi", "libx264", 3)
RIGHT = dict.fromkeys(READERS, NUMBERS)
right = [look(name) == RIGHT for name in ("h264.mp4", "h264.mkv", "no-b-frames.ts")] == [True] * 3
LATE = {"torchcodec": [12, 12, 24, 36, "none"], "OpenCV": [12, 13, 15, 30, 40], "decord2": [12, 17, 27, 42, 46]}
right &= look("h264.ts") == LATE
right &= look("hevc.ts") == LATE
avi = look("h264.avi")
right &= avi["torchcodec"] == [0, 3, 13, 28, 38] and avi["OpenCV"] == NUMBERS and avi["decord2"][2:] != NUMBERS[2:]
everything = {name: all_frames(name) for name in ("h264.ts", "hevc.ts", "h264.avi")}
print("torchcodec's get_all_frames():", everything)
right &= everything == dict.fromkeys(everything, "none")
sys.exit(not right)
PYTHON
