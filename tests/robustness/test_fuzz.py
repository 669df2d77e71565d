"""Damaged pictures and messages are refused, never stumbled over; ``tools/fuzz.py`` runs many more of them."""

import pytest

from tests.support.pictures import DATA
from tests.support.serving import serving
from tools import fuzz

KEPT = sorted((DATA / "fuzz").iterdir())  # the smallest picture of each kind of answer, named by its status
SEED = 2

# Pillow's, about damage that it reads past and about sizes that are refused next
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


async def test_pictures_that_were_hard_once_are_answered_as_then() -> None:
    async with serving(max_image_pixels=fuzz.MAX_PIXELS) as it:
        answers = {file.name: await it.rest.post("/segment", content=file.read_bytes()) for file in KEPT}
    assert len(answers) > 20
    assert {name: answer.status_code for name, answer in answers.items()} == {
        name: int(name.partition("-")[0]) for name in answers
    }


@pytest.mark.slow
async def test_no_mutated_picture_or_message_is_a_fault_of_the_service() -> None:
    found = await fuzz.fuzz(range(600), SEED)
    assert found.faults == []
    assert found.answers["REST 200"] > 0
    assert found.answers["frame mask"] > 0
    assert found.answers["gRPC OK"] > 0
