#!/usr/bin/env bash
# Who frees a decoded frame of PyAV once its side data were read.
#
# Guess:   a frame is freed with its last reference, like any other; reading frame.side_data (there stands the display
#          matrix by which players turn a video) changes nothing of that.
# Truth:   side_data is made on first use, refers to its frame and is kept by it: a circle. Such a frame stays until the
#          garbage collector runs, with all of its planes. The collector counts objects, not their bytes: it sees few.
# Versions: av 18.1.0
# Matters: a server that collects rarely, to have no pauses, held 0.6 MB for each frame of a 720x576 video, some 80 MB at
#          its peak. The service reads the display matrix from the first frame of a stream only.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q av==18.1.0 numpy==2.4.0
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import io
import re
import sys

import av
import numpy as np

FRAMES, WIDTH, HEIGHT = 300, 720, 576

made = io.BytesIO()
with av.open(made, "w", format="mpegts") as muxer:
    track = muxer.add_stream("mpeg2video", rate=25)
    track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    for number in range(FRAMES):
        picture = np.full((HEIGHT, WIDTH, 3), number % 250, np.uint8)
        muxer.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    muxer.mux(track.encode())


def resident():
    return int(re.search(r"VmRSS:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024


def grown(read):
    """Return by how many MiB decoding grows the process while nothing collects garbage."""
    with av.open(io.BytesIO(made.getvalue())) as container:
        gc.collect()
        before = resident()
        for frame in container.decode(video=0):
            read(frame)
        after = resident()
    del frame
    gc.collect()
    return after - before


gc.disable()
grown(lambda frame: None)  # FFmpeg's own buffers
plain = grown(lambda frame: frame.width)
touched = grown(lambda frame: frame.side_data)
print("av", av.__version__)
print(f"{FRAMES} frames of {WIDTH * HEIGHT * 1.5 / 2**20:.1f} MiB: grown by {plain:.0f} MiB, with side_data {touched:.0f}")
sys.exit(not (plain < 20 and touched > 100))
PYTHON
