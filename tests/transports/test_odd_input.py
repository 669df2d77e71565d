"""Odd but good pictures: whatever they are stored as, the answer is that of the plain picture a person sees."""

import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.frames import codec
from tests.support.cases.pictures import HEIGHT, ODD, WIDTH, white_boxes
from tests.support.pictures import Mask, dice, encoded, mask_of, turned
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving(RedPredictor()) as running:
        yield running


@pytest.fixture
async def expected(running: Running) -> Mask:
    mask = await segmented(running, encoded(white_boxes()))
    assert dice(mask, np.asarray(white_boxes())[..., 0] > 0) > 0.95
    return mask


async def segmented(running: Running, image: bytes) -> Mask:
    answer = await running.rest.post("/segment", content=image)
    assert answer.status_code == 200, answer.text
    return mask_of(answer.content)


@pytest.mark.parametrize("kind", ODD)
async def test_a_picture_is_segmented_alike_whatever_it_is_stored_as(
    running: Running, expected: Mask, kind: str
) -> None:
    assert dice(await segmented(running, ODD[kind]()), expected) > 0.98


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_the_mask_has_the_geometry_that_a_person_sees(
    running: Running, expected: Mask, orientation: int, kind: str
) -> None:
    mask = await segmented(running, turned(white_boxes(), orientation, kind))
    assert mask.shape == (HEIGHT, WIDTH)
    assert dice(mask, expected) > 0.97


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
async def test_an_orientation_that_only_xmp_states_turns_nothing_as_in_browsers(
    running: Running, expected: Mask, kind: str
) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {"pnginfo": PngInfo(), "xmp": xmp, "tiffinfo": {700: xmp}}
    options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    image = encoded(white_boxes(), kind, **options)
    assert xmp in image
    mask = await segmented(running, image)
    assert mask.shape == (HEIGHT, WIDTH)
    assert dice(mask, expected) > 0.97


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_smaller_in_the_geometry_that_a_person_sees(orientation: int) -> None:
    large = white_boxes().resize((8 * WIDTH, 8 * HEIGHT))
    picture, whole = codec.to_rgb(turned(large, orientation, "JPEG"), 10**7, least_side=HEIGHT)
    assert whole == large.size
    assert picture.size == (WIDTH, HEIGHT)
    difference = np.asarray(picture).astype(int) - np.asarray(white_boxes())
    assert np.abs(difference).mean() < 8


@pytest.mark.parametrize(("kind", "side", "decoded"), [("JPEG", 0, 8), ("JPEG", HEIGHT + 1, 2), ("PNG", HEIGHT, 8)])
def test_what_is_asked_for_is_never_undercut(kind: str, side: int, decoded: int) -> None:
    stored = encoded(white_boxes().resize((8 * WIDTH, 8 * HEIGHT)), kind)
    picture, whole = codec.to_rgb(stored, 10**7, least_side=side)
    assert whole == (8 * WIDTH, 8 * HEIGHT)
    assert picture.size == (decoded * WIDTH, decoded * HEIGHT)


@pytest.mark.parametrize("query", [{}, {"roi": "auto"}, {"output": "overlay"}])
async def test_a_mask_has_the_size_of_a_large_picture_however_it_was_decoded(
    running: Running, query: dict[str, str]
) -> None:
    large = white_boxes().resize((16 * WIDTH, 16 * HEIGHT))
    answer = await running.rest.post("/segment", content=encoded(large, "JPEG"), params=query)
    assert Image.open(io.BytesIO(answer.content)).size == large.size


async def test_a_region_counts_in_pixels_of_the_upright_picture(running: Running, expected: Mask) -> None:
    image = turned(white_boxes(), 6, "PNG")
    answer = await running.rest.post("/segment", content=image, params={"roi": "55,35,41,29"})
    mask = mask_of(answer.content)
    assert not mask[:35].any()
    assert dice(mask[35:, 55:], expected[35:, 55:]) > 0.95


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
async def test_the_smallest_pictures_are_segmented(
    running: Running, size: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    mask = await segmented(running, encoded(Image.new("RGB", size, colour)))
    assert mask.shape == size[::-1]
    assert mask.all() if colour[0] else not mask.any()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow says so, and reads on
async def test_a_damaged_exif_block_is_no_reason_to_refuse(running: Running, expected: Mask) -> None:
    image = encoded(white_boxes(), "JPEG", quality=95, exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    assert dice(await segmented(running, image), expected) > 0.97
