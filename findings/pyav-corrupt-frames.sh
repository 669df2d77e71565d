#!/usr/bin/env bash
# Which frames PyAV calls corrupt after a part of a video was lost.
#
# Guess:   frame.is_corrupt is true for each frame with pixels that FFmpeg made up, so also for those that refer to a
#          damaged or missing one, until the next key frame. And container.decode() goes on behind a damaged packet.
# Truth:   only the frame in whose own data an error is found is marked. MP4: container.decode() raises at a packet that
#          cannot be decoded and ends. Whoever demultiplexes and goes on, as players do, gets the next frames with other
#          pixels and no mark on any. MPEG-TS: a packet that comes cut has packet.is_corrupt; frames behind missing ones
#          carry wrong pixels and no mark.
# Versions: av 18.1.0, numpy 2.4.0
# Matters: a mask of pixels that a decoder made up looks like a finding. The service counts all frames from a damage to
#          the next key frame as damaged.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q av==18.1.0 numpy==2.4.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import av
import numpy as np

FRAMES, WIDTH, HEIGHT = 30, 160, 128


def made(kind):
    """Return a video of a bright box that moves over noise, one key frame at its beginning."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(out, "w", format=kind) as muxer:
        track = muxer.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10", "bf": "0"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = noise.copy()
            picture[30:90, 4 * number : 4 * number + 40] = 230
            muxer.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        muxer.mux(track.encode())
    return out.getvalue()


def decoded(content, kind):
    """Return frames by their times as (pixels, marked), how many packets failed, and how many were marked."""
    frames, failed, marked = {}, 0, 0
    with av.open(io.BytesIO(content), format=kind) as container:
        track = container.streams.video[0]
        track.codec_context.thread_count = 1
        for packet in container.demux(track):
            marked += packet.is_corrupt
            try:
                for frame in packet.decode():
                    frames[frame.pts] = (frame.to_ndarray(format="gray").astype(int), frame.is_corrupt)
            except av.error.InvalidDataError:
                failed += 1
    return frames, failed, marked


def plain(content, kind):
    with av.open(io.BytesIO(content), format=kind) as container:
        container.streams.video[0].codec_context.thread_count = 1
        number = 0
        try:
            for _ in container.decode(video=0):
                number += 1
        except av.error.InvalidDataError:
            return f"raised after {number} of {FRAMES} frames"
        return f"gave {number} of {FRAMES} frames"


print("av", av.__version__)
ok = True
for kind, lost in (("mp4", 100), ("mpegts", 188 * 30)):
    whole = made(kind)
    cut = bytearray(whole)
    if kind == "mp4":
        with av.open(io.BytesIO(whole)) as container:
            position = [packet.pos for packet in container.demux(video=0) if packet.size][FRAMES // 2]
    else:
        position = len(whole) // 2 // 188 * 188
    cut[position : position + lost] = bytes(lost)
    before, _, _ = decoded(whole, kind)
    after, failed, marked = decoded(bytes(cut), kind)
    wrong = [time for time in after if np.abs(after[time][0] - before[time][0]).mean() > 0.5]
    told = [time for time in wrong if after[time][1]]
    print(
        f"{kind}: of {len(after)} frames {len(wrong)} have wrong pixels, {len(told)} of these are marked; "
        f"packets: {failed} failed, {marked} marked; container.decode() {plain(bytes(cut), kind)}"
    )
    ok &= len(wrong) > 5 and len(told) <= 1
    ok &= (failed > 0 and plain(bytes(cut), kind).startswith("raised")) if kind == "mp4" else marked > 0
sys.exit(not ok)
PYTHON
