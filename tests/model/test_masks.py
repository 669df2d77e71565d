"""Masks as data sets store them are read by one rule, in ``evaluate``, ``train`` and ``weights compare`` alike."""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.errors import UserError
from model.evaluation import command, comparison, flags
from model.pictures.errors import PictureError
from model.pictures.masks import levels_of, read_mask, told
from model.training.data.pairs import find_pairs, read_pair, read_truth
from model.weights import checkpoint
from tests.support.pictures import SAMPLES, annotation, encoded

SAMPLE = Image.open(SAMPLES[0]).convert("RGB").reduce(4)
TRUTH = np.asarray(Image.fromarray(annotation(SAMPLES[0])).resize(SAMPLE.size, Image.Resampling.NEAREST))

Array = npt.NDArray[np.uint8]


def grey(background: int, polyp: int, kind: str = "PNG", **options: object) -> bytes:
    return encoded(Image.fromarray(np.where(TRUTH, polyp, background).astype(np.uint8)), kind, **options)


def palette(colours: list[int], index: int) -> bytes:
    picture = Image.fromarray((TRUTH * index).astype(np.uint8), "P")
    picture.putpalette(colours)
    return encoded(picture)


def wide(polyp: int) -> bytes:
    done, written = cv2.imencode(".png", (TRUTH * polyp).astype(np.uint16))
    assert done
    return written.tobytes()


def colours(polyp: tuple[int, int, int]) -> bytes:
    return encoded(Image.fromarray(TRUTH[..., None] * np.array(polyp, np.uint8)))


def white_is_zero() -> bytes:
    """Write a TIFF of one bit that says that 0 is white."""
    return encoded(Image.fromarray(TRUTH), "TIFF", compression="group4", tiffinfo={262: 0})


def with_edges() -> bytes:
    """Blur a mask as resizing does."""
    return encoded(Image.fromarray(cv2.GaussianBlur(TRUTH.astype(np.uint8) * np.uint8(255), (5, 5), 0)))


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]
READ: dict[str, tuple[Callable[[], bytes], str]] = {
    "0 and 255": (lambda: grey(0, 255), "levels 0, 255"),
    "0 and 1": (lambda: grey(0, 1), "levels 0, 1"),
    "0 and 128": (lambda: grey(0, 128), "levels 0, 128"),
    "one bit": (lambda: encoded(Image.fromarray(TRUTH)), "levels 0, 1"),
    "one bit of TIFF whose white is 0": (white_is_zero, "levels 0, 1"),
    "VOC's palette, first class": (lambda: palette(VOC, 1), "palette indices 0, 1"),
    "VOC's palette, second class": (lambda: palette(VOC, 2), "palette indices 0, 2"),
    "a palette of greys": (lambda: palette([level for index in range(256) for level in [index] * 3], 1), "levels 0, 1"),
    "VOC's colour": (lambda: colours((128, 0, 0)), "levels 0, 128"),
    "blue": (lambda: colours((0, 0, 255)), "levels 0, 255"),
    "16 bits": (lambda: wide(65535), "levels 0, 65535"),
    "16 bits of 0 and 1": (lambda: wide(1), "levels 0, 1"),
    "16 bits of 0 and 255": (lambda: wide(255), "levels 0, 255"),
    "edges": (with_edges, "levels around 0 and 255"),
    "JPEG": (lambda: grey(0, 255, "JPEG", quality=75), "levels around 0 and 255"),
    "JPEG in colour": (
        lambda: encoded(Image.open(io.BytesIO(grey(0, 255))).convert("RGB"), "JPEG", quality=90),
        "levels around 0 and 255",
    ),
    "JPEG of the best quality": (lambda: grey(0, 128, "JPEG", quality=100), "levels around 0 and 1"),
    "JPEG of grey 128": (lambda: grey(0, 128, "JPEG", quality=90), "levels around 0 and 1"),
}


def put(folder: Path, mask: bytes) -> tuple[Path, Path]:
    """Make a data set of one picture."""
    images, masks = folder / "set" / "images", folder / "set" / "masks"
    for each in (images, masks):
        each.mkdir(parents=True)
    SAMPLE.save(images / "one.png")
    (masks / "one.png").write_bytes(mask)  # the bytes say what it is, not the name
    return images, masks


def evaluated(folder: Path, images: Path, masks: Path) -> dict:
    maps = folder / "maps"
    maps.mkdir()
    Image.fromarray(TRUTH.astype(np.uint8) * np.uint8(255)).save(maps / "one.png")
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    given = {"images": images, "masks": masks, "predictions": maps, "out": folder / "out"}
    assert (
        command.run(parser.parse_args([part for key, path in given.items() for part in (f"--{key}", str(path))])) == 0
    )
    return json.loads((folder / "out" / "report.json").read_text())


@pytest.mark.parametrize("kind", READ)
def test_the_mask_is_the_annotation_for_evaluation_and_training(tmp_path, capsys, kind: str) -> None:
    make, levels = READ[kind]
    images, masks = put(tmp_path, make())
    exact = "JPEG" not in kind and kind != "edges"

    read = read_mask(masks / "one.png")
    assert set(np.unique(read)) == {0, 1}
    assert (read != TRUTH).mean() < (1e-9 if exact else 0.002)

    (file,) = find_pairs(images, masks)
    assert (read_truth(file) == read).all()
    assert (read_pair(file, 10_000).mask == read).all()
    small = read_pair(file, 100).mask
    assert abs(float(small.mean()) - float(TRUTH.mean())) < 0.002

    report = evaluated(tmp_path, images, masks)
    assert report["metrics"]["set (n=1)"]["dice"]["value"] > (0.9999 if exact else 0.99)
    (found,) = report["masks"]
    assert found.startswith(levels)
    assert f"masks: 1 with {levels}" in capsys.readouterr().out


def uncertain() -> bytes:
    levels = TRUTH.astype(np.uint8) * np.uint8(255)
    levels[:60, :60] = 128
    return encoded(Image.fromarray(levels))


def classes() -> bytes:
    levels = TRUTH.astype(np.uint8)
    levels[:60, :60] = 2
    return encoded(Image.fromarray(levels))


def three(level: int, border: int) -> bytes:
    """Write a polyp of a level inside a border of another one."""
    polyp = TRUTH.astype(np.uint8)
    levels = np.where(cv2.dilate(polyp, np.ones((11, 11), np.uint8)) > 0, border, 0)
    return encoded(Image.fromarray(np.where(TRUTH, level, levels).astype(np.uint8)))


def void() -> bytes:
    indices = TRUTH.astype(np.uint8)
    indices[:60, :60] = 255
    picture = Image.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, *[0] * (3 * 253), 224, 224, 192])
    return encoded(picture)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an uncertain region": (uncertain, "its levels 0, 128, 255 do not say"),
    "two classes": (classes, "its levels 0, 1, 2 do not say"),
    "a class and its uncertain border": (lambda: three(1, 255), "its levels 0, 1, 255 do not say"),
    "a dark class": (lambda: three(60, 255), "its levels 0, 60, 255 do not say"),
    "a bright class": (lambda: three(200, 255), "its levels 0, 200, 255 do not say"),
    "VOC's uncertain pixels": (void, "its palette indices 0, 1, 255 do not say"),
    "a palette whose background is white": (
        lambda: palette([255, 255, 255, 128, 0, 0], 1),
        "its palette indices 0, 1 do",
    ),
    "two greys": (lambda: grey(100, 200), "its levels 100, 200 do not say"),
    "one dark grey": (lambda: encoded(Image.new("L", SAMPLE.size, 40)), "its levels 40 do not say"),
    "a photograph": (lambda: encoded(SAMPLE), "its levels 0, 1, 2, .* more do not say"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_mask_that_could_mean_several_things_is_refused_with_its_levels(tmp_path, kind: str) -> None:
    make, words = REFUSED[kind]
    images, masks = put(tmp_path, make())
    with pytest.raises(PictureError, match=rf"one\.png: {words}.*store polyps as 255 on 0"):
        read_mask(masks / "one.png")
    with pytest.raises(UserError, match=words):
        evaluated(tmp_path, images, masks)
    with pytest.raises(UserError, match=words):
        read_pair(find_pairs(images, masks)[0], 300)


@pytest.mark.parametrize(("level", "white", "polyp"), [(0, 255, False), (255, 255, True), (0, 65535, False)])
def test_a_mask_of_one_level_is_empty_or_full(tmp_path, level: int, white: int, polyp: bool) -> None:
    kind = np.uint8 if white == 255 else np.uint16
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((30, 40), level, kind))
    assert (read_mask(tmp_path / "mask.png") == polyp).all()
    assert told(levels_of([tmp_path / "mask.png"])) == f"masks: 1 with levels {level}" + " (no polyp)" * (not polyp)


def test_masks_of_several_kinds_are_counted(tmp_path) -> None:
    for name, data in {"a": grey(0, 255), "b": grey(0, 255), "c": grey(0, 1)}.items():
        (tmp_path / name).write_bytes(data)
    assert told(levels_of(sorted(tmp_path.iterdir()))) == "masks: 2 with levels 0, 255; 1 with levels 0, 1"


def test_weights_are_compared_on_the_same_masks(tmp_path, weights) -> None:
    """A mask that is stored as JPEG has levels above 0 around the polyp."""
    loaded = checkpoint.load(weights)
    kinds = {"png": grey(0, 255), "jpeg": grey(0, 255, "JPEG", quality=75), "voc": palette(VOC, 1)}
    files = {name: comparison.pairs(*([path] for path in put(tmp_path / name, mask))) for name, mask in kinds.items()}
    exact = comparison.compare(loaded, loaded, files["png"])
    assert exact.one > 0.8
    assert comparison.compare(loaded, loaded, files["jpeg"] + files["voc"]).one == pytest.approx(exact.one, abs=0.002)
