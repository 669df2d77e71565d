#!/usr/bin/env bash
# Colours of lossless JPEG (ITU-T T.81, process 14, SOF3) in Pillow and OpenCV, which decode it by libjpeg-turbo 3.
#
# Guess:   a lossless JPEG is decoded like any other: YCbCr becomes RGB, where JFIF or subsampled chroma says that it is
#          YCbCr.
# Truth:   libjpeg-turbo converts no colours of a lossless JPEG. Where JFIF declares YCbCr, decoding to RGB fails: Pillow
#          says "broken data stream", OpenCV returns nothing, although the file is sound. Without JFIF and Adobe markers
#          three components are taken for RGB, even if two of them are subsampled, which only chroma is; nothing
#          warns. FFmpeg, which writes such files, reads them right.
#          Asked for YCbCr (Image.draft), Pillow decodes the one with JFIF, and converts it itself.
# Versions: Pillow 13.0.0 (libjpeg-turbo 3.2.0), opencv-python-headless 5.0.0.93, av 18.1.0, numpy 2.4.6
# Matters: lossless JPEG from endoscopes and archives would be refused as damaged, or segmented in wrong colours. The
#          reader asks for YCbCr where it is declared, and takes subsampled chroma for chroma.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  pillow==13.0.0 opencv-python-headless==5.0.0.93 av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
from PIL import Image, features

print(f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, OpenCV {cv2.__version__}")
print(f"av {av.__version__}")

x, y = np.meshgrid(np.arange(128), np.arange(96))
scene = np.stack([200 - x // 2, 90 + y // 2, 80 + x // 4], axis=-1).astype(np.uint8)  # mucosa: red, smooth
luma = np.asarray(Image.fromarray(scene).convert("YCbCr"))
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def lossless(pixels: str) -> bytes:
    codec = av.CodecContext.create("ljpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 128, 96, pixels, Fraction(1, 25)
    if pixels == "yuvj444p":
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.moveaxis(luma, -1, 0)), format="yuv444p")
        frame.color_range = 2
        frame = frame.reformat(format=pixels, src_color_range=2, dst_color_range=2)
    else:
        frame = av.VideoFrame.from_ndarray(scene, format="rgb24").reformat(format=pixels)
    data = b"".join(bytes(packet) for packet in codec.encode(frame) + codec.encode(None))
    assert b"\xff\xc3" in data
    return data


def off(seen: np.ndarray) -> float:
    return float(np.abs(seen.astype(int) - scene).mean())


def by_pillow(data: bytes, mode: str | None = None) -> np.ndarray:
    picture = Image.open(io.BytesIO(data))
    if mode:
        picture.draft(mode, picture.size)
    return np.asarray(picture.convert("RGB"))


subsampled = lossless("yuvj420p")
with av.open(io.BytesIO(subsampled)) as file:
    right = off(next(file.decode(video=0)).to_ndarray(format="rgb24"))
pillow = off(by_pillow(subsampled))
opencv = off(cv2.imdecode(np.frombuffer(subsampled, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
print(f"subsampled: FFmpeg is off by {right:.1f} levels, Pillow by {pillow:.1f}, OpenCV by {opencv:.1f}")

declared = lossless("yuvj444p")
declared = declared[:2] + JFIF + declared[2:]
try:
    by_pillow(declared)
    refused = ""
except OSError as error:
    refused = str(error)
nothing = cv2.imdecode(np.frombuffer(declared, np.uint8), cv2.IMREAD_COLOR) is None
drafted = off(by_pillow(declared, "YCbCr"))
print(f"JFIF: Pillow says {refused!r}, OpenCV returns {'nothing' if nothing else 'a picture'};", end=" ")
print(f"asked for YCbCr, Pillow is off by {drafted:.1f}")

sys.exit(not (right < 3 and pillow > 20 and opencv > 20 and refused and nothing and drafted < 3))
PYTHON
