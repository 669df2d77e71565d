import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from model.training import recipe
from model.training.augmentation import augment, crops
from model.training.augmentation.erase import GROWTH, LARGEST_POLYP, erase
from model.training.data import near_copies, pairs, sources
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import Pair
from model.training.data.sources import Source
from model.training.recipe import Augmentation, Phase, Recipe
from tests.support.pictures import ROOT, SAMPLES

PLAIN = Recipe("plain", batch=4, learning_rate=1e-3, steps=10, phases=(Phase(0, (64,)),))
STRONG = recipe.load("finetune")


def blob(rng: np.random.Generator, height: int = 60, width: int = 80) -> Pair:
    y, x = np.ogrid[:height, :width]
    centre = rng.uniform(0.3, 0.7, 2) * (height, width)
    mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (height / 6) ** 2).astype(np.uint8)
    image = rng.integers(60, 120, (height, width, 3), np.uint8) + 100 * mask[..., None]
    return Pair(image.astype(np.uint8), mask)


@pytest.fixture
def blobs() -> list[Pair]:
    rng = np.random.default_rng(0)
    return [blob(rng) for _ in range(6)]


@pytest.fixture
def scenes() -> list[Pair]:
    """Return bright discs to the left of mottled tissue, with room for a cover to the right."""
    rng = np.random.default_rng(0)
    masks = [cv2.circle(np.zeros((180, 240), np.uint8), (70, y), 25, 1, -1) for y in (60, 80, 100, 120)]
    return [Pair(rng.integers(60, 120, (180, 240, 3), np.uint8) + np.uint8(100) * m[..., None], m) for m in masks]


@pytest.fixture
def folders(tmp_path, blobs):
    images, masks = tmp_path / "clinic" / "images", tmp_path / "clinic" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for name, pair, kinds in zip("abc", blobs, (("png", "png"), ("bmp", "tiff"), ("webp", "bmp")), strict=False):
        Image.fromarray(pair.image).save(images / f"{name}.{kinds[0]}")
        Image.fromarray(pair.mask * np.uint8(255)).save(masks / f"{name}.{kinds[1]}")
    return images, masks


def test_pictures_and_masks_pair_by_stem_whatever_their_formats(folders):
    assert [pair.name for pair in pairs.find_pairs(*folders)] == ["clinic/a", "clinic/b", "clinic/c"]


def test_picture_without_a_mask_is_named(folders):
    (folders[1] / "b.tiff").unlink()
    with pytest.raises(pairs.DatasetError, match=r"no mask for b\.bmp"):
        pairs.find_pairs(*folders)


def test_missing_and_empty_folders_are_named(folders, tmp_path):
    with pytest.raises(pairs.DatasetError, match="no such folder; check its path"):
        pairs.find_pairs(tmp_path / "nowhere", folders[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(pairs.DatasetError, match=r"holds no pictures; give a folder with \.bmp, "):
        pairs.find_pairs(tmp_path / "empty", folders[1])


def test_a_list_of_names_that_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(pairs.DatasetError, match=r"cannot be read \(No such file or directory\); check its path"):
        pairs.read_names(tmp_path / "nowhere.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(pairs.DatasetError, match="is no text in UTF-8; write one name a line"):
        pairs.read_names(tmp_path / "list.txt")


def test_listed_pairs_are_left_out_or_kept_by_name_or_stem(folders, tmp_path):
    (tmp_path / "list.txt").write_text("# held out\nclinic/a\nb.png\n\n")
    found, listed = pairs.find_pairs(*folders), pairs.read_names(tmp_path / "list.txt")
    clinic = [Source("clinic", 1, tuple(found))]
    assert [file.name for file in sources.files_of(sources.select(clinic, listed, None))] == ["clinic/c"]
    assert [file.name for file in sources.files_of(sources.select(clinic, set(), listed))] == ["clinic/a", "clinic/b"]


MOVES = {
    "moved": lambda pixels: np.roll(pixels, (round(0.04 * len(pixels)), -round(0.04 * pixels.shape[1])), (0, 1)),
    "cropped": lambda pixels: pixels[len(pixels) // 20 : -len(pixels) // 20, pixels.shape[1] // 20 :],
    "mirrored": lambda pixels: pixels[:, ::-1],
}


@pytest.mark.parametrize("move", MOVES)
def test_a_near_copy_is_found_moved_cropped_or_mirrored_and_no_other_picture(tmp_path, move):
    here = [pairs.PairFile(sample.stem, sample, None) for sample in SAMPLES]
    there = []
    for sample in SAMPLES[:2]:
        with Image.open(sample) as picture:
            moved = MOVES[move](np.asarray(picture.convert("RGB")))
        Image.fromarray(moved).save(tmp_path / f"{sample.stem}.png")
        there.append(pairs.PairFile(f"{sample.stem} {move}", tmp_path / f"{sample.stem}.png", None))
    found = list(near_copies.find(here, there))
    assert [(copy.here, copy.there) for copy in found] == [(s.stem, f"{s.stem} {move}") for s in SAMPLES[:2]]
    assert not list(near_copies.find(here[1:], here[:1]))


def test_pair_is_shrunk_to_the_side_it_is_kept_at(folders, blobs):
    first = pairs.find_pairs(*folders)[0]
    assert pairs.read_pair(first, side=40).image.shape == (30, 40, 3)
    kept = pairs.read_pair(first, side=400)
    assert (kept.image == blobs[0].image).all()
    assert (kept.mask == blobs[0].mask).all()


def test_batch_is_a_function_of_seed_and_step_alone(blobs):
    batches = Batches([Pool(blobs)], STRONG)
    images, masks = batches[3, 64]
    again, masks_again = Batches([Pool(blobs)], STRONG)[3, 64]
    assert (images == again).all()
    assert (masks == masks_again).all()
    assert (Batches([Pool(blobs)], dataclasses.replace(STRONG, seed=99))[3, 64][0] != images).any()


def test_every_pair_is_seen_once_an_epoch(blobs):
    batches = Batches([Pool(blobs)], dataclasses.replace(PLAIN, batch=3))
    seen = np.concatenate([batches[step, 64][0].numpy() for step in (0, 1)])
    assert len({picture.tobytes() for picture in seen}) == len(blobs)


def test_without_augmentation_a_pair_is_only_resized(blobs):
    rng = np.random.default_rng(0)
    image, mask = augment.augment(blobs[0], None, 64, Augmentation(), rng)
    reference = np.asarray(Image.fromarray(blobs[0].image).resize((64, 64), Image.Resampling.BILINEAR), float)
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(image.astype(float) - reference)[inner].mean() < 8  # noise, resampled in two ways
    resized = np.asarray(Image.fromarray(blobs[0].mask).resize((64, 64), Image.Resampling.NEAREST))
    assert (mask != resized).mean() < 0.01


def test_mask_follows_its_picture_through_every_augmentation(blobs):
    settings = dataclasses.replace(STRONG.augmentation, paste=0, highlights=0, text=0, inset=0, gray=0, noise=0)
    for seed in range(20):
        painted = Pair(np.repeat(blobs[0].mask[..., None] * np.uint8(255), 3, axis=2), blobs[0].mask)
        image, mask = augment.augment(painted, None, 64, settings, np.random.default_rng(seed))
        bright = image.max(axis=2) > image.max() / 2 if mask.any() else np.zeros_like(mask)
        assert (bright != mask).mean() < 0.08


def test_polyp_free_crops_are_polyp_free_and_large_enough(blobs):
    rng = np.random.default_rng(0)
    drawn = [box for pair in blobs for _ in range(5) if (box := crops.draw(pair.mask, rng, 0.2, tries=300))]
    assert drawn
    for pair in blobs:
        box = crops.draw(pair.mask, rng, 0.2, tries=300)
        if box is not None:
            assert not box.of(pair.mask).any()
            assert box.width * box.height >= 0.19 * pair.mask.size  # sides are whole pixels


def test_picture_full_of_polyp_has_no_polyp_free_crop():
    assert crops.draw(np.ones((20, 20), np.uint8), np.random.default_rng(0)) is None


def test_negatives_are_the_share_of_samples_that_the_recipe_asks_for(scenes):
    batches = Batches([Pool(scenes)], dataclasses.replace(PLAIN, batch=100, negatives=0.5))
    _, masks = batches[0, 32]
    assert 0.3 < (masks.sum(dim=(1, 2, 3)) == 0).float().mean() < 0.6  # a few find no crop


def test_candidates_come_after_the_batch_and_are_polyp_free(scenes):
    plain, more = (Batches([Pool(scenes)], dataclasses.replace(PLAIN, candidates=count))[3, 64] for count in (0, 5))
    assert len(more[0]) == len(more[1]) == PLAIN.batch + 5
    assert (more[0][: PLAIN.batch] == plain[0]).all()
    assert more[1][: PLAIN.batch].any()
    assert not more[1][PLAIN.batch :].any()


def test_pictures_without_room_for_a_candidate_are_an_error():
    full = Pair(np.zeros((20, 20, 3), np.uint8), np.ones((20, 20), np.uint8))
    with pytest.raises(pairs.DatasetError, match="no picture leaves room"):
        Batches([Pool([full])], dataclasses.replace(PLAIN, candidates=1, mined=1))[0, 32]


def test_an_erased_polyp_looks_like_what_surrounds_it(scenes):
    rng = np.random.default_rng(1)
    found = [(pair, erased) for pair in scenes if (erased := erase(*pair, rng)) is not None]
    assert len(found) >= 2  # not every picture has room beside its polyp
    for pair, erased in found:
        polyp = pair.mask > 0
        assert pair.image[polyp].mean() > pair.image[~polyp].mean() + 80
        assert abs(erased[polyp].mean() - pair.image[~polyp].mean()) < 15


@pytest.mark.parametrize("centre", [(70, 0), (70, 12), (0, 90), (0, 0), (8, 172)])
def test_a_polyp_at_the_edge_of_the_picture_is_erased_up_to_the_edge(centre):
    rng = np.random.default_rng(0)
    image = rng.integers((140, 70, 60), (160, 90, 80), (180, 240, 3), np.uint8)
    mask = cv2.circle(np.zeros((180, 240), np.uint8), centre, 25, 1, -1)
    image[mask > 0] = 220, 200, 60  # green tells it from the mucosa
    erased = erase(image, mask, rng)
    assert erased is not None
    green = erased[..., 1].astype(int)
    assert np.percentile(green[mask > 0], 99) < 105
    assert abs(green[mask > 0].mean() - 80) < 8


def test_erasing_changes_nothing_far_from_the_polyp(scenes):
    image, mask = scenes[0]
    erased = erase(image, mask, np.random.default_rng(1))
    side = 2 * round(GROWTH * max(mask.shape)) + 9
    near = cv2.dilate(mask, np.ones((side, side), np.uint8)) > 0
    assert np.abs(erased[~near].astype(int) - image[~near]).max() <= 1  # the solver rounds


def test_what_cannot_be_covered_is_not_erased(scenes):
    image, mask = scenes[0]
    large = np.zeros_like(mask)
    large[: round(2 * LARGEST_POLYP * len(mask))] = 1
    rng = np.random.default_rng(1)
    assert erase(image, np.zeros_like(mask), rng) is None
    assert erase(image, large, rng) is None
    assert erase(image * mask[..., None], mask, rng) is None  # only black to cover it with


def test_erased_samples_have_an_empty_mask(scenes):
    plain, erased = (Batches([Pool(scenes)], dataclasses.replace(PLAIN, erased=share))[0, 64] for share in (0.0, 1.0))
    assert (plain[1].sum(dim=(1, 2, 3)) > 0).all()
    assert erased[1].sum() == 0
    assert (plain[0] != erased[0]).any(dim=3).any(dim=2).any(dim=1).all()


BY_PROCESSES = """
import numpy as np, torch
from model.training import recipe
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import Pair
rng = np.random.default_rng(0)
pairs = [Pair(rng.integers(0, 256, (64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)) for _ in range(5)]
batches = Batches([Pool(pairs)], recipe.load("finetune"))
orders = [(step, (64, 96)[step % 2]) for step in range(6)]
for order, made in zip(orders, batches.ordered(iter(orders), beside_gpu=True), strict=True):
    assert all(map(torch.equal, made, batches[order]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_processes_make_the_same_batches_in_the_same_order():
    done = subprocess.run([sys.executable, "-c", BY_PROCESSES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_list_of_names_may_have_suffixes_in_any_case(tmp_path, start):
    (tmp_path / "names.txt").write_text(f"{start}IMG_1.JPG\nclinic/b.Png # a comment\nc.final\n", encoding="utf-8")
    assert pairs.read_names(tmp_path / "names.txt") == {"IMG_1", "clinic/b", "c.final"}
