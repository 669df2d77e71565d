#!/usr/bin/env bash
# Interlaced video in OpenCV's VideoCapture, before and after its wheels moved to FFmpeg 8.
#
# Guess:   VideoCapture shows a frame of interlaced video as it is stored, both fields in one picture, as PyAV does. What
#          it cannot convert it does not return: read() is false then.
# Truth:   so it was up to 4.12. From 4.13 on, swscale refuses each frame that is marked as interlaced, since OpenCV's
#          own picture is not ("Cannot convert interlaced to progressive frames or vice versa", on standard error). Yet
#          read() returns True for every frame, with a picture that has nothing of the video: black, or what lay in
#          that memory before. The number of frames is right. PyAV, with the same FFmpeg, shows every frame, and
#          takes the colours of each field from that field's own rows.
# Versions: opencv-python-headless 4.12.0.88, 4.13.0.92, 4.14.0.94 and 5.0.0.93, av 18.1.0, numpy 2.2.6
# Matters: recordings of older endoscopes and of capture boxes are interlaced (576i, 480i, 1080i). A script that reads
#          one with OpenCV sends pictures of nothing, and gets masks without polyps and without an error. The service
#          and its commands read video with PyAV; docs/python.md says so beside its recipe for a camera.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" --disable-pip-version-check install -q av==18.1.0 numpy==2.2.6 "$@"; }
cat > "$folder/make.py" <<'PYTHON'
import sys
from fractions import Fraction

import av
import numpy as np

FRAMES, WIDTH, HEIGHT = 10, 720, 576
VIDEOS = {
    "progressive.ts": ("mpeg2video", {"qscale": "2"}),
    "interlaced.ts": ("mpeg2video", {"qscale": "2", "flags": "+ildct+ilme"}),
    "progressive.mp4": ("libx264", {"crf": "10"}),
    "interlaced.mp4": ("libx264", {"crf": "10", "x264-params": "interlaced=1:tff=1"}),
}

print("av", av.__version__)
for name, (codec, options) in VIDEOS.items():
    with av.open(f"{sys.argv[1]}/{name}", "w") as muxer:
        track = muxer.add_stream(codec, rate=25, options=options)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), (190, 80, 70), np.uint8)  # mucosa
            picture[200:300, 60 * number : 60 * number + 100] = 240
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            muxer.mux(track.encode(frame))
        muxer.mux(track.encode())
PYTHON
cat > "$folder/read.py" <<'PYTHON'
import sys

import av
import cv2
import numpy as np

file, expected = sys.argv[1:]
with av.open(file) as container:
    shown = [(frame.to_ndarray(format="bgr24"), frame.interlaced_frame) for frame in container.decode(video=0)]
capture, off = cv2.VideoCapture(file, cv2.CAP_FFMPEG), []
while (read := capture.read())[0]:
    off.append(float(np.abs(read[1].astype(int) - shown[len(off)][0]).mean()))
marked = sum(interlaced for _, interlaced in shown)
name = file.rpartition("/")[2]
print(
    f"OpenCV {cv2.__version__}, {name}: {len(off)} frames, {marked} marked as interlaced; from PyAV's they are"
    f" {min(off):.1f} to {max(off):.1f} levels apart"
)
seen = "shown" if max(off) < 3 else "nothing" if min(off) > 20 else "some"
sys.exit(not (len(off) == len(shown) == 10 and marked in (0, 10) and seen == expected))
PYTHON
for opencv in 4.12.0.88 4.13.0.92 4.14.0.94 5.0.0.93; do
  install "opencv-python-headless==$opencv"
  [[ -e $folder/interlaced.mp4 ]] || "$folder/venv/bin/python" "$folder/make.py" "$folder"
  interlaced=nothing
  [[ $opencv == 4.12.* ]] && interlaced=shown
  for kind in ts mp4; do
    "$folder/venv/bin/python" "$folder/read.py" "$folder/progressive.$kind" shown
    "$folder/venv/bin/python" "$folder/read.py" "$folder/interlaced.$kind" "$interlaced" 2> "$folder/log"
  done
  [[ $interlaced == shown ]] || grep -m 1 -o "Cannot convert interlaced.*" "$folder/log"
done
