"""Masks as PNG: what any decoder reads is the mask."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from service.frames import codec

RANDOM = np.random.default_rng(1)
SHAPES = [(1, 1), (1, 300), (497, 568), (2, 65535), (65535, 2)]  # height and width


def masks(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    blob = np.zeros(shape, np.uint8)
    blob[shape[0] // 3 : 2 * shape[0] // 3 + 1, shape[1] // 4 : shape[1] // 2 + 1] = 255
    return {
        "empty": np.zeros(shape, np.uint8),
        "full": np.full(shape, 255, np.uint8),
        "one polyp": blob,
        "noise": RANDOM.integers(0, 2, shape, np.uint8) * np.uint8(255),
        "a view": np.flipud(blob)[:, ::-1],
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", masks((1, 1)))
def test_a_mask_is_a_grey_png_of_8_bits_with_the_same_pixels(shape: tuple[int, int], name: str) -> None:
    mask = masks(shape)[name]
    png = codec.encode_mask(mask)
    Image.open(io.BytesIO(png)).verify()  # the checksums of the chunks
    picture = Image.open(io.BytesIO(png))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), mask)
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), mask)


def test_a_mask_is_small() -> None:
    assert len(codec.encode_mask(masks((497, 568))["one polyp"])) < 1000
