import dataclasses

import cv2
import numpy as np
import pytest

from model.training.augmentation import augment, pasting
from model.training.augmentation.pasting import Donor
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import Pair
from model.training.recipe import Augmentation, Phase, Recipe

SIZE = 64
MUCOSA, POLYP, OTHER = 90, 200, 140
PLAIN = Recipe("plain", batch=60, learning_rate=1e-3, steps=10, phases=(Phase(0, (SIZE,)),))


def disc(radius: int = 12, side: int = SIZE, at: tuple[int, int] = (SIZE // 2, SIZE // 2)) -> np.ndarray:
    return cv2.circle(np.zeros((side, side), np.uint8), at, radius, 1, -1)


def flat(level: int, side: int = SIZE) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


@pytest.fixture
def clean() -> Pair:
    return Pair(flat(MUCOSA), np.zeros((SIZE, SIZE), np.uint8))


@pytest.fixture
def polyp() -> Pair:
    mask = disc()
    return Pair(flat(MUCOSA) + (POLYP - MUCOSA) * mask[..., None].astype(np.uint8), mask)


def test_a_pasted_polyp_joins_the_mask(clean, polyp):
    image, mask = augment.augment(clean, Donor(*polyp), SIZE, Augmentation(), np.random.default_rng(0))
    assert (mask == polyp.mask).all()
    assert image[mask > 0].mean() > MUCOSA + 20
    assert (image[:8, :8] == MUCOSA).all()


def test_a_decoy_changes_the_picture_and_leaves_the_mask(clean, polyp):
    texture = np.random.default_rng(0).integers(60, 120, (SIZE, SIZE, 3), np.uint8)
    image, mask = pasting.paste(*clean, pasting.decoy(texture, polyp.mask))
    assert (image[polyp.mask > 0] != MUCOSA).any()
    assert (image[:8, :8] == MUCOSA).all()
    assert not mask.any()


def test_a_decoy_takes_the_shape_of_a_polyp_in_a_picture_of_another_size(polyp):
    donor = pasting.decoy(flat(MUCOSA, 2 * SIZE), polyp.mask)
    assert donor.piece.shape == donor.image.shape[:2]
    assert donor.piece.mean() == pytest.approx(polyp.mask.mean(), rel=0.01)
    assert not donor.is_polyp


def test_a_decoy_hides_no_polyp(polyp):
    image, mask = pasting.paste(*polyp, pasting.decoy(flat(OTHER), disc(at=(40, 40))))
    assert image is polyp.image
    assert mask is polyp.mask


def test_pasted_pieces_shrink_by_up_to_the_factor_of_the_recipe(clean, polyp):
    settings = Augmentation(pasted_shrink=3.0)
    areas = [
        augment.augment(clean, Donor(*polyp), SIZE, settings, np.random.default_rng(seed))[1].sum() / polyp.mask.sum()
        for seed in range(40)
    ]
    assert 1 / 11 < min(areas) < 0.2
    assert 0.7 < max(areas) < 1.1


def test_the_shrunk_piece_stays_in_the_middle_of_its_polyp(clean, polyp):
    image, mask = augment.augment(clean, Donor(*polyp), SIZE, Augmentation(pasted_shrink=3), np.random.default_rng(3))
    y, x = np.nonzero(mask)
    assert abs(y.mean() - SIZE / 2) < 2
    assert abs(x.mean() - SIZE / 2) < 2
    assert image[round(y.mean()), round(x.mean())].mean() > MUCOSA + 20


def test_polyps_and_decoys_are_pasted_as_often_as_the_recipe_asks_for(clean, polyp):
    """Of clean frames and frames with a polyp in equal parts, half of the donors of polyps have none."""
    pools = [Pool([clean]), Pool([polyp])]
    recipe = dataclasses.replace(PLAIN, augmentation=Augmentation(paste=0.8))
    masks = Batches([Pool([clean]), Pool([polyp])], recipe)[0, SIZE][1].flatten(1).any(dim=1)
    assert 0.5 + 0.5 * 0.2 < masks.float().mean() < 0.5 + 0.5 * 0.65
    noisy = Pair(np.random.default_rng(0).integers(60, 120, (SIZE, SIZE, 3), np.uint8), clean.mask)
    recipe = dataclasses.replace(PLAIN, augmentation=Augmentation(decoy=1.0))
    images, masks = Batches([Pool([clean]), Pool([noisy]), *pools[1:]], recipe)[0, SIZE]
    without = ~masks.flatten(1).any(dim=1)
    flat_ones = (images[:, :, :8, :8] == MUCOSA).flatten(1).all(dim=1) & without
    changed = (images != MUCOSA).flatten(1).any(dim=1) & flat_ones
    assert 0 < changed.sum() < flat_ones.sum()


def test_without_a_clean_picture_there_is_no_decoy(polyp):
    plain, more = (
        Batches([Pool([polyp])], dataclasses.replace(PLAIN, augmentation=Augmentation(decoy=share)))[0, SIZE]
        for share in (0.0, 1.0)
    )
    assert (plain[0] == more[0]).all()
