"""Pixels in, mask out: the arithmetic is PyTorch's and Pillow's."""

import platform
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from model import transforms
from model.pictures.limits import MAX_SIDE
from model.transforms import SIZE, Pixels
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES

RANDOM = np.random.default_rng(1)
BILINEAR = Image.Resampling.BILINEAR
SHAPES = [
    (1, 1),
    (2, 900),
    (568, 497),
    (352, 352),
    (352, 700),
    (300, 360),
    (300, 1300),
    (1300, 300),
    (100, 90),
    (1921, 1083),
]

HAS_AVX2 = "avx2" in Path("/proc/cpuinfo").read_text()
COMPILES = shutil.which("cc") and platform.machine() == "x86_64" and HAS_AVX2
needs_compiler = pytest.mark.skipif(not COMPILES, reason="no C compiler, or no processor with AVX2")


def by_c(picture: Image.Image, side: int) -> Pixels:
    assert transforms.compiled is not None, "model/resize.c is not compiled; run: pip install --no-deps -e ."
    return transforms.resized(transforms.compiled, picture, side)


WAYS = [transforms.resized_by_pillow, pytest.param(by_c, marks=needs_compiler)]
Way = Callable[[Image.Image, int], Pixels]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width + height).integers(0, 256, (height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255  # the largest sums
    return Image.fromarray(pixels)


def width_first(picture: Image.Image, side: int) -> npt.NDArray[np.float64]:
    """Resize with weights in double precision; only the sums are rounded."""
    narrow = _means(np.asarray(picture, np.float64).transpose(1, 0, 2), side).transpose(1, 0, 2)
    return _means(narrow, side).transpose(2, 0, 1)


def _means(pixels: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    scale = len(pixels) / side
    centres = (np.arange(side)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(len(pixels)) + 0.5 - centres) / max(1, scale))
    return np.floor(np.tensordot(weights / weights.sum(axis=1, keepdims=True), pixels, 1) + 0.5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_width_is_resized_first_in_pictures_of_any_shape(way: Way, shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    differences = np.abs(way(picture, 352) - width_first(picture, 352))
    assert differences.max() <= 1
    assert np.mean(differences > 0) < 0.02, "the other order differs in 0.1 and more"


@needs_compiler
@pytest.mark.parametrize("side", [256, 352, 512])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_compiled_way_has_every_value_of_pillow(side: int, shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    assert np.array_equal(by_c(picture, side), transforms.resized_by_pillow(picture, side))


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_of_an_endoscope_is_as_pillow_resizes_it_in_one_call(way: Way) -> None:
    for sample in SAMPLES:
        picture = Image.open(sample).convert("RGB")
        assert np.array_equal(way(picture, 352), np.asarray(picture.resize((352, 352), BILINEAR)).transpose(2, 0, 1))


@needs_compiler
class TestCompiled:
    def test_it_is_used(self, patched: Patches) -> None:
        uses = patched(transforms, "resized")
        transforms.to_input(noise(20, 10), 32)
        assert uses.count == 1

    @pytest.mark.parametrize("size", [(700, 333), (33, 2000), (transforms.BAND_PIXELS + 1, 2)])
    @pytest.mark.parametrize("rows", [0, 3, 50])
    def test_a_picture_in_bands_is_as_in_one_piece(self, patched: Patches, size: tuple[int, int], rows: int) -> None:
        picture = noise(*size)
        patched(transforms, "BAND_PIXELS", max(size[0], 352) * rows)
        assert np.array_equal(by_c(picture, 352), transforms.resized_by_pillow(picture, 352))

    def test_a_narrow_picture_of_the_greatest_height_takes_little_memory(self) -> None:
        picture = Image.new("RGB", (1, MAX_SIDE), "white")
        tracemalloc.start()
        assert by_c(picture, 512).min() == 255
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 8 * 2**20

    def test_a_side_that_the_vectors_do_not_fill_is_refused(self) -> None:
        with pytest.raises(ValueError, match="multiple of four"):
            by_c(noise(20, 10), 30)

    @pytest.mark.parametrize("content", [b"", b"no library"])
    def test_what_is_no_library_is_left_alone(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "resize.so").write_bytes(content)
        assert transforms._load(tmp_path / "resize.so") is None

    def test_one_with_other_parameters_is_left_alone(self, patched: Patches) -> None:
        assert transforms.compiled is not None
        patched(transforms, "RESIZE_INTERFACE", transforms.RESIZE_INTERFACE + 1)
        assert transforms._load(Path(transforms.compiled._name)) is None

    def test_threads_do_not_mix_their_pictures(self) -> None:
        pictures = [noise(400 + each, 300 + each) for each in range(40)]
        expected = [transforms.resized_by_pillow(each, 352) for each in pictures]
        with ThreadPoolExecutor(4) as pool:
            together = pool.map(lambda each: by_c(each, 352), pictures * 3)
            assert all(np.array_equal(*pair) for pair in zip(together, expected * 3, strict=True))


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
