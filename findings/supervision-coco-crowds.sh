#!/usr/bin/env bash
# Masks that supervision writes as COCO, and pycocotools, which evaluates them.
#
# Guess:   DetectionDataset.as_coco() writes each mask as one object with its pixels: "iscrowd" is 0, which COCO sets to 1
#          only for groups that nobody could tell apart.
# Truth:   a mask with a hole or in two parts is written with run lengths and "iscrowd": 1. COCO's evaluation leaves
#          crowds out: a network that finds none of them gets the same average precision, 1.0, as one that finds all. Other
#          masks are written as polygons through the centres of the outermost pixels, and so lack half a pixel all
#          around in pycocotools, though "area" is right. A mask one pixel high gets "segmentation": [], for which
#          annToMask raises IndexError; a warning speaks of it, of crowds none does.
# Versions: supervision 0.31.2, pycocotools 2.0.11, opencv-python-headless 5.0.0.93, numpy 2.4.6
# Matters: masks of a network have holes, where light is reflected for example, and a fold may cut a polyp in two. These
#          are the difficult ones, and they do not count. docs/annotation.md says to set "iscrowd" to 0.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  supervision==0.31.2 pycocotools==2.0.11 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2> log
import contextlib
import copy
import io
import json
import sys
from importlib.metadata import version

import cv2
import numpy as np
import supervision
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 120, 160


def polyp(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Return a mask of boxes (top, bottom, left, right)."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


MASKS = {
    "whole": polyp((20, 60, 30, 80)),
    "hole": polyp((20, 60, 30, 80)) & ~polyp((30, 40, 40, 50)),
    "parts": polyp((20, 60, 30, 80), (70, 90, 30, 50)),
    "line": polyp((50, 51, 20, 40)),
}


def write() -> dict:
    """Write one picture for each mask, and return the file of COCO."""
    annotations = {}
    for name, mask in MASKS.items():
        cv2.imwrite(f"{name}.png", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        boxes = supervision.mask_to_xyxy(mask[None]).astype(float)
        annotations[f"{name}.png"] = supervision.Detections(boxes, mask=mask[None], class_id=np.array([0]))
    made = supervision.DetectionDataset(["polyp"], list(annotations), annotations)
    made.as_coco(images_directory_path="images", annotations_path="coco.json")
    with open("coco.json") as file:
        return json.load(file)


def reader(file: dict) -> COCO:
    made = COCO()
    made.dataset = copy.deepcopy(file)
    made.createIndex()
    return made


def look(file: dict) -> dict[str, tuple[int, int, int | str]]:
    """Return "iscrowd", the area, and what pycocotools reads, by the name of the mask."""
    coco, found = reader(file), {}
    for each in file["annotations"]:
        name = coco.imgs[each["image_id"]]["file_name"].removesuffix(".png")
        try:
            read = int(coco.annToMask(each).sum())
        except IndexError:
            read = "IndexError"
        found[name] = each["iscrowd"], round(each["area"]), read
        print(f"{name}: {int(MASKS[name].sum())} pixels; iscrowd {each['iscrowd']}, area {found[name][1]}, read {read}")
    return found


def precision(file: dict, names: set[str]) -> float:
    """Return the average precision of a network that finds exactly these polyps."""
    coco, found = reader(file), []
    for number, picture in coco.imgs.items():
        name = picture["file_name"].removesuffix(".png")
        if name in names:
            shape = run_lengths.encode(np.asfortranarray(MASKS[name].astype(np.uint8)))
            found.append({"image_id": number, "category_id": coco.getCatIds()[0], "segmentation": shape, "score": 0.9})
    evaluation = COCOeval(coco, coco.loadRes(found), "segm")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    evaluation.accumulate()
    return round(float(evaluation.eval["precision"][0, :, 0, 0, 2].mean()), 2)


print(*(f"{name} {version(name)}" for name in ("supervision", "pycocotools", "opencv-python-headless", "numpy")))
file = write()
right = look(file) == {
    "whole": (0, 2000, 1911),
    "hole": (1, 1900, 1900),
    "parts": (1, 2400, 2400),
    "line": (0, 20, "IndexError"),
}
file["annotations"] = [each for each in file["annotations"] if each["segmentation"]]
mended = copy.deepcopy(file)
for each in mended["annotations"]:
    each["iscrowd"] = 0
with contextlib.redirect_stdout(io.StringIO()):
    all_found, one_found = precision(file, set(MASKS)), precision(file, {"whole"})
    one_of_three = precision(mended, {"whole"})
print(f"average precision: all found {all_found}, one of three {one_found}; without crowds, one of three {one_of_three}")
sys.exit(not right or (all_found, one_found) != (1, 1) or one_of_three > 0.4)
PYTHON
