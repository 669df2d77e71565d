"""The region of interest is found, checked and cut out in pixels of the frame."""

import numpy as np
import pytest
from PIL import Image

from service.errors import InvalidParameter
from service.frames.regions import Box, crop, locate


def endoscope_frame(width: int, height: int, field: Box) -> Image.Image:
    """Draw a lit field with cut corners in a black surround, and text beside it."""
    pixels = np.random.default_rng(0).integers(0, 12, (height, width, 3), np.uint8)
    yy, xx = np.mgrid[:height, :width]
    inside = (xx >= field.x) & (xx < field.x + field.width) & (yy >= field.y) & (yy < field.y + field.height)
    corner = (
        abs(xx - field.x - field.width / 2) / field.width + abs(yy - field.y - field.height / 2) / field.height
    ) > 0.9
    pixels[inside & ~corner] = (180, 90, 70)
    pixels[height // 2 : height // 2 + 8, 4:30] = 255  # burnt-in text
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("width", "height"), [(720, 576), (1280, 1024), (1920, 1080)])
def test_auto_finds_the_lit_field_and_is_not_misled_by_text(width: int, height: int) -> None:
    field = Box(width // 4, height // 16, width // 2, height * 7 // 8)
    found = locate(endoscope_frame(width, height, field), "auto")
    slack = 2 * max(width, height) / 256  # two pixels of the reduced picture
    assert found == pytest.approx(field, abs=2 * slack)


@pytest.mark.parametrize("level", [0, 10, 200])
def test_auto_keeps_the_whole_of_an_evenly_dark_or_lit_frame(level: int) -> None:
    frame = Image.new("RGB", (300, 200), (level, level, level))
    assert locate(frame, "auto") == Box(0, 0, 300, 200)


def test_auto_works_on_a_single_pixel() -> None:
    assert locate(Image.new("RGB", (1, 1), "white"), "auto") == Box(0, 0, 1, 1)


def test_a_given_box_is_taken_as_it_is() -> None:
    frame = Image.new("RGB", (64, 48))
    assert locate(frame, "8,4,16,12") == Box(8, 4, 16, 12)
    assert crop(frame, Box(8, 4, 16, 12)).size == (16, 12)


def test_the_full_frame_is_not_copied() -> None:
    frame = Image.new("RGB", (64, 48))
    assert crop(frame, locate(frame, "full")) is frame


@pytest.mark.parametrize(
    "roi", ["0,0,65,48", "60,40,8,8", "0,0,0,10", "64,0,1,1", "1,2,3", "-1,0,4,4", "middle", "", "full\n", "0,0,4,4\n"]
)
def test_a_box_outside_the_frame_is_refused_with_the_reason(roi: str) -> None:
    with pytest.raises(InvalidParameter, match=r"it should be full|send a box|of at least 1 pixel"):
        locate(Image.new("RGB", (64, 48)), roi)
