"""Label Studio's run lengths of a mask: a stream of bits, which is none of COCO's encodings.

The mask is four equal channels of 8 bits, row by row. The stream has, each with its highest bit first: the number of
values (32 bits), the bits of a value less 1 (5), and four sizes in bits, each less 1 (4 each). A run is a 1, the number
of one of these sizes (2), the length of the run less 1 in that many bits, and its value.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

CHANNELS = 4
VALUE_BITS = 8
SIZES = (3, 4, 8, 16)  # bits of the length of a run; Label Studio writes the same
LONGEST = 1 << SIZES[-1]


def encode(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the bytes that Label Studio reads as a mask (H, W): 255 where it is true, 0 elsewhere."""
    pixels = mask.ravel()
    starts = np.flatnonzero(np.append(True, pixels[1:] != pixels[:-1]))
    lengths = np.diff(starts, append=pixels.size) * CHANNELS
    bits = f"{pixels.size * CHANNELS:032b}{VALUE_BITS - 1:05b}" + "".join(f"{size - 1:04b}" for size in SIZES)
    bits += "".join(
        run
        for value, length in zip(pixels[starts].tolist(), lengths.tolist(), strict=True)
        for run in _runs(255 * value, length)
    )
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8))


def _runs(value: int, length: int) -> Iterator[str]:
    while length:
        part = min(length, LONGEST)
        number, size = next((number, size) for number, size in enumerate(SIZES) if part <= 1 << size)
        yield f"1{number:02b}{part - 1:0{size}b}{value:0{VALUE_BITS}b}"
        length -= part
