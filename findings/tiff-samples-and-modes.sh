#!/usr/bin/env bash
# Pixels of TIFF in Pillow: 16 bits in separate planes, 12 bits, and a colour map of 8 bits.
#
# Guess:   whatever Pillow opens without an error it shows right: the mode of the picture says what its samples are.
# Truth:   RGB of 16 bits in three planes (PlanarConfiguration 2), uncompressed, has the mode RGB, and its bytes are read
#          as samples of 8 bits: stripes instead of the picture. Grey of 12 bits has the mode I;16 and levels to 4095,
#          which nothing tells from 16 bits: the picture is 16 times too dark. A ColorMap that a writer filled with 0 to
#          255 instead of 0 to 65535 is divided by 256: the picture is black. No error and no warning in any of them.
#          OpenCV, which decodes by libtiff, shows the planes and the colour map right, and refuses 12 bits.
# Versions: Pillow 13.0.0, opencv-python-headless 5.0.0.93, numpy 2.4.6
# Matters: each would be answered with the mask of another picture, and nobody would notice. The reader decodes the samples by the tags: BitsPerSample, PlanarConfiguration, ColorMap.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys
import warnings

import cv2
import numpy as np
from PIL import Image

print(f"Pillow {Image.__version__}, OpenCV {cv2.__version__}, numpy {np.__version__}")
warnings.simplefilter("error")

WIDTH, HEIGHT = 64, 48
x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
grey = (x * 4).astype(np.uint8)
colour = np.stack([grey, 255 - grey, (y * 5).astype(np.uint8)], axis=-1)


def tiff(tags: dict, parts: list[bytes]) -> bytes:
    """Write one picture without compression; all values are SHORT, or LONG above 65535 (TIFF 6.0, section 2)."""
    offsets = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    body = b"".join(parts)
    whole = {256: [WIDTH], 257: [HEIGHT], 259: [1], 273: offsets, 278: [HEIGHT], 279: list(map(len, parts)), **tags}
    start = 8 + len(body) + len(body) % 2
    beyond = start + 2 + 12 * len(whole) + 4
    entries = following = b""
    for tag, values in sorted(whole.items()):
        form, kind = ("I", 4) if max(values) > 65535 else ("H", 3)
        packed = struct.pack(f"<{len(values)}{form}", *values)
        if len(packed) > 4:
            packed, following = struct.pack("<I", beyond + len(following)), following + packed
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = struct.pack("<2sHI", b"II", 42, start) + body.ljust(start - 8, b"\0")
    return head + struct.pack("<H", len(whole)) + entries + bytes(4) + following


planes = [(colour[..., c].astype("<u2") * 257).tobytes() for c in range(3)]
planar = tiff({258: [16] * 3, 262: [2], 277: [3], 284: [2]}, planes)
bits = ((grey.astype(int) * 4095 // 255)[..., None] >> np.arange(11, -1, -1)) & 1
twelve = tiff({258: [12], 262: [1], 277: [1]}, [np.packbits(bits.reshape(HEIGHT, -1).astype(np.uint8), axis=1).tobytes()])
ramp = list(range(256))
mapped = tiff({258: [8], 262: [3], 277: [1], 320: ramp * 3}, [grey.tobytes()])


def by_pillow(data: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(data))
    if picture.mode.startswith("I;16"):  # what its mode means: 0 to 65535
        return (np.asarray(picture) >> 8).astype(np.uint8)[..., None].repeat(3, axis=2)
    return np.asarray(picture.convert("RGB"))


def by_opencv(data: bytes) -> np.ndarray | None:
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if seen is None else seen[..., ::-1]


def off(seen: np.ndarray | None, scene: np.ndarray) -> float:
    return float("nan") if seen is None else float(np.abs(seen.astype(int) - scene).mean())


shown = np.repeat(grey[..., None], 3, axis=2)
found = {}
for name, data, scene in (("planes", planar, colour), ("12 bits", twelve, shown), ("8-bit map", mapped, shown)):
    found[name] = off(by_pillow(data), scene), off(by_opencv(data), scene)
    print(f"{name}: {Image.open(io.BytesIO(data)).mode} in Pillow, which is off by {found[name][0]:.1f} levels, OpenCV by {found[name][1]:.1f}")
dark = by_pillow(twelve).max() / 255

as_said = all(pillow > 30 for pillow, _ in found.values()) and dark < 1 / 15
sys.exit(not (as_said and found["planes"][1] < 2 and found["8-bit map"][1] < 2))
PYTHON
