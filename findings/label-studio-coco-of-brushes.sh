#!/usr/bin/env bash
# Brush masks of Label Studio, exported as COCO.
#
# Guess:   "Brush labels to COCO" gives one annotation for each region, whose pixels are those of the mask, holes
#          included; a picture that an annotator left empty is in the list of images.
# Truth:   the outline runs through the centres of the outermost pixels and is written as a polygon. So the area lacks
#          half a pixel all around, which is a tenth of a polyp 20 pixels wide; the box is right. Holes are filled. A line
#          one pixel wide is left out, also where it is all that a picture has. A region in two parts becomes two
#          annotations. Pictures without a region are not listed, nor are those that lost their only one. The export to
#          PNG has every pixel, but no file for an empty picture either.
# Versions: label-studio-sdk 2.1.2, which holds the converter, pycocotools 2.0.11, numpy 2.2.6
# Matters: corrected masks come back for training. Small polyps shrink, and the pictures without a polyp, from which a
#          network learns not to mark folds and bubbles, are lost. docs/annotation.md says to export PNG and JSON.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  label-studio-sdk==2.1.2 pycocotools==2.0.11 numpy==2.2.6
cd "$folder"
mkdir png
venv/bin/python - <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter, brush
from PIL import Image
from pycocotools import mask as coco

WIDTH, HEIGHT = 160, 120
CONFIGURATION = """
<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="Polyp"/></BrushLabels>
</View>
"""


def disc(x: int, y: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def region(mask: np.ndarray) -> dict:
    return {
        "id": "region",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {"format": "rle", "rle": brush.mask2rle(mask.astype(np.uint8) * 255), "brushlabels": ["Polyp"]},
    }


def task(number: int, masks: list[np.ndarray]) -> dict:
    made = {"id": number, "completed_by": 1, "result": list(map(region, masks))}
    return {"id": number, "data": {"image": f"/data/{number}.png"}, "annotations": [made]}


def drawn(annotation: dict) -> np.ndarray:
    return coco.decode(coco.merge(coco.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH))).astype(bool)


line = np.zeros((HEIGHT, WIDTH), bool)
line[40:60, 140] = True
PICTURES = {
    "a disc": disc(60, 60, 10),
    "a ring": disc(60, 60, 30) & ~disc(60, 60, 12),
    "two discs in one region": disc(110, 90, 10) | disc(30, 100, 8),
    "a line": line,
    "nothing": None,
}
print(*(f"{name} {version(name)}" for name in ("label-studio-sdk", "pycocotools", "numpy")))
tasks = [task(number, [] if mask is None else [mask]) for number, mask in enumerate(PICTURES.values())]
Path("tasks.json").write_text(json.dumps(tasks))
for form in ("BRUSH_TO_COCO", "BRUSH_TO_PNG"):
    Converter(CONFIGURATION, None).convert("tasks.json", "png" if form.endswith("PNG") else "coco", form, is_dir=False)
exported = json.loads(Path("coco/result_coco.json").read_text())
listed = [each["file_name"] for each in exported["images"]]
print("images in COCO:", *listed)
right = listed == ["0.png", "1.png", "2.png"]
found = {}
for number, (name, mask) in enumerate(PICTURES.items()):
    files = list(Path("png").glob(f"task-{number}-*.png"))
    if mask is None:
        print(f"{name}: {len(files)} files of PNG")
        right &= not files
        continue
    parts = [each for each in exported["annotations"] if each["image_id"] == number]
    pixels = np.any([drawn(each) for each in parts], axis=0) if parts else np.zeros_like(mask)
    exact = len(files) == 1 and np.array_equal(np.asarray(Image.open(files[0])), mask * 255)
    found[name] = len(parts), sum(each["area"] for each in parts) / mask.sum(), int((pixels & ~mask).sum())
    print(
        f"{name}: {mask.sum()} pixels; COCO: annotations {found[name][0]}, area {found[name][1]:.2f} of them, drawn"
        f" {int(pixels.sum())}, {found[name][2]} of them outside; PNG is exact: {exact}"
    )
    right &= exact
right &= found["a disc"][0] == 1 and 0.85 < found["a disc"][1] < 0.95
right &= found["a ring"][0] == 1 and found["a ring"][2] > 300
right &= found["two discs in one region"][0] == 2
right &= found["a line"][0] == 0
sys.exit(not right)
PYTHON
