"""Pixels in, mask out: the arithmetic is PyTorch's and Pillow's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from model import transforms
from model.transforms import SIZE

RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (622, 529), (1920, 1080), (352, 352)])
def test_upsampling_is_bilinear_without_aligned_corners(width: int, height: int) -> None:
    logits = RANDOM.normal(size=(SIZE, SIZE)).astype(np.float32)
    expected = F.interpolate(
        torch.from_numpy(logits)[None, None], (height, width), mode="bilinear", align_corners=False
    )
    assert np.abs(transforms.upsample(logits, width, height) - expected[0, 0].numpy()).max() < 2e-3


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.5, 0.9, 1.0])
def test_the_mask_is_where_the_probability_exceeds_the_threshold(threshold: float) -> None:
    logits = RANDOM.normal(scale=4, size=(40, 30)).astype(np.float32)
    mask = transforms.to_mask(logits, threshold)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.where(probability > threshold, 255, 0))


def test_the_sigmoid_does_not_overflow() -> None:
    extremes = np.array([-1e4, 0, 1e4], np.float32)
    assert transforms.sigmoid(extremes).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (1920, 1080)])
def test_the_network_sees_a_planar_square(size: tuple[int, int]) -> None:
    pixels = transforms.to_input(Image.new("RGB", size, (10, 20, 30)))
    assert (pixels.shape, pixels.dtype) == ((3, SIZE, SIZE), np.uint8)
    assert pixels.flags.c_contiguous
    assert pixels.reshape(3, -1).T.tolist() == [[10, 20, 30]] * SIZE**2
