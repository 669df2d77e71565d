"""Label Studio's run lengths, beside what label-studio-sdk 2.1.2 writes; in ``make annotation-check`` it reads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from service.annotation.run_lengths import encode

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
HEADER = [57, 27, 254]  # wordsize 8, sizes 3, 4, 8 and 16; its last bits belong to the first run


def drawn(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (drawn(3, 5, (1, 1, 2, 4)), [0, 0, 0, 60, *HEADER, 23, 0, 183, 255, 133, 192, 0]),
        (drawn(3, 5), [0, 0, 0, 60, *HEADER, 59, 0]),
        (drawn(3, 5, (0, 0, 3, 5)), [0, 0, 0, 60, *HEADER, 59, 255]),
        (drawn(1, 1, (0, 0, 1, 1)), [0, 0, 0, 4, 57, 27, 252, 127, 224]),
    ],
    ids=["line", "empty", "full", "pixel"],
)
def test_masks_are_encoded_as_by_its_sdk(mask: np.ndarray, expected: list[int]) -> None:
    found = encode(mask)
    assert found == expected[: len(found)]
    assert not any(expected[len(found) :])  # the SDK fills up with one byte more than is needed
    assert all(0 <= each <= 255 for each in found)


@settings(deadline=None)
@given(MASKS)
def test_what_is_decoded_is_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(decode(encode(mask), mask.shape), mask)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (300, 200, 700, 900), (0, 0, 720, 1280)], ids=["empty", "box", "full"])
def test_runs_longer_than_a_length_can_say_are_divided(box: tuple[int, int, int, int]) -> None:
    mask = drawn(720, 1280, box)
    assert np.array_equal(decode(encode(mask), mask.shape), mask)


def decode(content: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Read the format as its description says; runs of single values do not occur in what is written here."""
    bits = "".join(f"{byte:08b}" for byte in content)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    count, value_bits = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[np.ndarray] = []
    while sum(map(len, values)) < count:
        assert take(1) == 1
        length = take(sizes[take(2)]) + 1
        values.append(np.full(length, take(value_bits)))
    channels = np.concatenate(values).reshape(*shape, 4)
    assert (channels == channels[:, :, :1]).all()
    assert np.isin(channels, (0, 255)).all()
    return channels[:, :, 3] > 0
