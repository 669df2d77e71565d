#!/usr/bin/env bash
# Masks with a palette of few colours in torchvision, as Pillow saves them.
#
# Guess:   torchvision.io.decode_image(file) gives the indices of a PNG with a palette, as Pillow does, or its colours.
# Truth:   Pillow saves a mask of mode P with one, two or four bits a pixel if its palette has at most 2, 4 or 16 colours.
#          In the default mode, UNCHANGED, torchvision gives indices, but only those of eight bits are right. From fewer
#          bits it makes a tensor of the right size and type, whose rows begin with the packed bytes of the file (64 for
#          the four pixels 1, 0, 0, 0 of two bits); what follows is arbitrary, and can differ from call to call. No error
#          and no warning. The modes GRAY and RGB are right, and so are Pillow and OpenCV.
# Versions: torchvision 0.29.2, torch 2.15.0, pillow 13.0.0, opencv-python-headless 5.0.0.93, numpy 2.4.6
# Matters: annotation tools write masks with palettes, and programs that shrink PNG files make palettes of one bit of any
#          mask of two colours. A training set then has noise for truth. docs/training-and-evaluation.md says to read such
#          masks with mode=GRAY; `pranet train` and `pranet evaluate` read them right.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  torchvision==0.29.2 torch==2.15.0 pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import numpy as np
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

HEIGHT, WIDTH = 48, 64
COLOURS = [(0, 0, 0), (255, 0, 0)] + [(0, 255, 0)] * 254


def save(name: str, colours: int) -> np.ndarray:
    """Write a mask with a palette of so many colours, and return its indices."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 20:50] = 1
    mask[:, 0] = 1
    picture = Image.fromarray(mask)
    picture.putpalette([level for colour in COLOURS[:colours] for level in colour])
    picture.save(name)
    return mask


def packed(mask: np.ndarray, bits: int) -> np.ndarray:
    """Return the rows of a mask as PNG stores them."""
    return np.packbits(np.unpackbits(mask[:, :, None], axis=2)[:, :, 8 - bits :].reshape(HEIGHT, -1), axis=1)


def look(colours: int) -> str:
    """Return what torchvision makes of a mask with a palette of so many colours."""
    name = f"{colours}.png"
    mask = save(name, colours)
    with open(name, "rb") as file:
        bits = file.read(25)[24]
    assert np.array_equal(np.asarray(Image.open(name)), mask)
    assert np.array_equal(cv2.imread(name)[:, :, 2] == 255, mask == 1)
    assert np.array_equal(decode_image(name, ImageReadMode.GRAY)[0].numpy() > 0, mask == 1)
    assert np.array_equal(decode_image(name, ImageReadMode.RGB)[0].numpy() == 255, mask == 1)
    read = decode_image(name)[0].numpy()
    assert read.shape == mask.shape
    if np.array_equal(read, mask):
        found = "right"
    else:
        rows = packed(mask, bits)
        found = "packed" if np.array_equal(read[:, : rows.shape[1]], rows) else "other"
    print(f"palette of {colours} colours, {bits} bits a pixel: {found}; row 15 begins with {read[15, :20].tolist()}")
    return found


print(*(f"{name} {version(name)}" for name in ("torchvision", "torch", "pillow", "opencv-python-headless", "numpy")))
sys.exit([look(colours) for colours in (2, 4, 16, 256)] != ["packed", "packed", "packed", "right"])
PYTHON
