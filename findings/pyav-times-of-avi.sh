#!/usr/bin/env bash
# Presentation times of H.264 in AVI, as PyAV gives them.
#
# Guess:   AVI has no presentation times, so a decoded frame has none (pts is None), or the one that its place in the
#          file gives. Either way, frames come in the order of their times.
# Truth:   FFmpeg makes times up. With B-frames they go back and forth: the frames of a sound file, in the order in
#          which they are shown, have the times 1, 4, 3, 5, 2, 8 and so on. Without B-frames, each frame has the time of
#          the next one, which is wrong where a recorder left a gap. Nothing warns. The decoding times (frame.dts) are
#          right but for a delay of all frames; only the last ones, which no packet follows, have none. MJPEG and MPEG-4
#          without B-frames have the right times in both, and so has H.264 in MP4 in pts.
# Versions: av 18.1.0, numpy 2.4.6
# Matters: capture boxes and old recorders write AVI. Whoever sorts by pts, as for other files, mixes the frames up, and
#          masks are shown at the wrong time. The commands take the decoding times of H.264 in AVI.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT = 160, 128
EVEN = list(range(12))
GAPS = [0, 1, 2, 5, 6, 10, 11, 12, 13, 14, 15, 16]  # FFmpeg writes an empty chunk for what is missing
B_FRAMES = {"bf": "3", "b-adapt": "0"}


def read(codec: str, times: list[int], options: dict[str, str], kind: str) -> tuple[list, list]:
    """Write frames whose grey tells their time; return the times of presentation and decoding, in frames."""
    path = f"{sys.argv[1]}/video.{kind}"
    with av.open(path, "w") as muxer:
        track = muxer.add_stream(codec, rate=25, options=options)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        track.codec_context.time_base = Fraction(1, 25)
        for time in times:
            grey = np.full((HEIGHT, WIDTH, 3), 10 * time, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=track.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            muxer.mux(track.encode(frame))
        muxer.mux(track.encode())
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    assert [round(frame.to_ndarray(format="gray").mean() / 10) for frame in frames] == times  # as they are shown
    unit = [float(frame.time_base * 25) for frame in frames]
    shown = [None if frame.pts is None else round(frame.pts * each) for frame, each in zip(frames, unit, strict=True)]
    decoded = [None if frame.dts is None else round(frame.dts * each) for frame, each in zip(frames, unit, strict=True)]
    return shown, decoded


def right(found: list, times: list[int]) -> bool:
    """Tell whether times are right but for a delay of all; the last three may have none."""
    known = [time for time in found if time is not None]
    return len(known) >= len(times) - 3 and all(
        time - found[0] == wanted for time, wanted in zip(known, times, strict=False)
    )


print("av", av.__version__, "libavformat", *av.library_versions["libavformat"])
as_described = True
for name, codec, times, options, kind in (
    ("H.264 with B-frames in AVI", "libx264", EVEN, B_FRAMES, "avi"),
    ("H.264 without, gaps, in AVI", "libx264", GAPS, {"bf": "0"}, "avi"),
    ("MJPEG, gaps, in AVI", "mjpeg", GAPS, {}, "avi"),
    ("MPEG-4, gaps, in AVI", "mpeg4", GAPS, {"bf": "0"}, "avi"),
    ("H.264 with B-frames, gaps, in MP4", "libx264", GAPS, B_FRAMES, "mp4"),
):
    shown, decoded = read(codec, times, options, kind)
    print(f"{name}: pts {shown}; dts {decoded}")
    as_described &= right(decoded, times) and right(shown, times) != ((codec, kind) == ("libx264", "avi"))
sys.exit(not as_described)
PYTHON
