import dataclasses

import cv2
import numpy as np
import pytest

from model.training.augmentation import pasting, stool
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import Pair
from model.training.recipe import Augmentation, Phase, Recipe

SIDE = 320
MUCOSA, STOOL, GLARE = (170, 85, 75), (165, 125, 45), (255, 250, 215)  # RGB
PLAIN = Recipe("plain", batch=40, learning_rate=1e-3, steps=10, phases=(Phase(0, (64,)),))


def frame(*spots: tuple[tuple[int, int], int, tuple[int, int, int]], light: float = 1.0) -> np.ndarray:
    """A frame of mucosa with discs (centre, radius, colour), RGB uint8 (320, 320, 3)."""
    made = np.full((SIDE, SIDE, 3), MUCOSA, np.uint8)
    for centre, radius, colour in spots:
        cv2.circle(made, centre, radius, colour, -1)
    return np.clip(made * light, 0, 255).astype(np.uint8)


def disc(centre: tuple[int, int], radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((SIDE, SIDE), np.uint8), centre, radius, 1, -1)


@pytest.mark.parametrize("light", [0.7, 1.0, 1.2])
def test_each_lump_is_found_where_it_lies_in_any_light(light):
    found = stool.lumps(frame(((80, 80), 30, STOOL), ((220, 200), 25, STOOL), light=light))
    assert len(found) == 2
    for lump, truth in zip(found, [disc((80, 80), 30), disc((220, 200), 25)], strict=True):
        assert 2 * (lump & truth).sum() / (lump.sum() + truth.sum()) > 0.85


def test_a_lump_in_a_picture_of_another_size_has_its_shape():
    picture = cv2.resize(frame(((80, 80), 30, STOOL)), (480, 400))
    (lump,) = stool.lumps(picture)
    assert lump.shape == (400, 480)
    assert lump[100, 120] == 1


@pytest.mark.parametrize(
    "spot",
    [((160, 160), 40, (200, 110, 105)), ((160, 160), 40, GLARE), ((160, 160), 4, STOOL), ((160, 160), 90, STOOL)],
    ids=["a pale polyp", "overexposed mucosa", "a speck", "a pool"],
)
def test_what_is_no_lump_of_stool_is_left(spot):
    assert stool.lumps(frame(spot)) == []


def test_a_lump_ends_before_a_black_box_whose_edge_would_come_along():
    picture = frame(((100, 230), 40, STOOL))
    assert stool.lumps(picture)[0][230, 95:105].all()
    picture[200:, :100] = 0
    (lump,) = stool.lumps(picture)
    assert lump[:, 120:].any()
    assert not lump[200:, :108].any()


def test_a_dark_frame_has_no_lump():
    assert stool.lumps(np.zeros((SIDE, SIDE, 3), np.uint8)) == []


def test_stool_is_pasted_in_its_own_colour_and_leaves_the_mask():
    picture = frame(((160, 160), 40, STOOL))
    (lump,) = stool.lumps(picture)
    purple = np.full_like(picture, (150, 60, 120))
    image, mask = pasting.paste(purple, np.zeros_like(lump), pasting.stool(picture, lump))
    assert not mask.any()
    assert image[160, 160] == pytest.approx(np.array(STOOL) * 0.7 + np.array((150, 60, 120)) * 0.3, abs=5)
    assert (image[:40, :40] == (150, 60, 120)).all()


def test_stool_is_pasted_into_as_many_samples_as_the_recipe_asks_for():
    shown = frame(((160, 160), 40, STOOL))
    polyp = Pair(frame(), disc((60, 60), 20))
    pools = [Pool([polyp], 1.0), Pool([Pair(shown, np.zeros((SIDE, SIDE), np.uint8))], 1e-6)]
    shares = []
    for share in (0.0, 0.5, 1.0):
        images, masks = Batches(pools, dataclasses.replace(PLAIN, augmentation=Augmentation(stool=share)))[0, 64]
        of_polyps = masks.flatten(1).any(dim=1).bool()
        yellow = images[:, 1, 32, 32].int() - images[:, 2, 32, 32].int() > 20  # green over blue; 10 in mucosa
        shares.append(float(yellow[of_polyps].float().mean()))
    assert shares[0] == 0
    assert 0.25 < shares[1] < 0.75
    assert shares[2] == 1
