"""The samples that a TIFF stores, as its tags describe them: any number of bits, planes, tiles and byte orders.

libtiff only decompresses: it is shown each plane as a grey picture of 8 bits, one pixel for each byte. What the bytes
mean is decided here (TIFF 6.0, sections 3, 7, 14, 15 and 21; technical note 3 for floats).
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from model.pictures import tiff_directory as tags
from model.pictures.errors import DAMAGED, UnreadablePicture, damaged, unsupported
from model.pictures.tiff_directory import Directory
from model.transforms import Pixels

LARGEST_TILE = 2**16  # pixels across; a tile may be wider than the picture
WITH_PREDICTOR = frozenset((5, 8, 32946, 34925, 50000))
DIFFERENCES, FLOAT_DIFFERENCES = 2, 3
ROWS_AT_ONCE = 64  # unpacked from bits; a bit takes a byte meanwhile

Stored = npt.NDArray[Any]


def read(data: bytes, directory: Directory) -> Stored:
    """Return the samples (H, W, S) as they are stored, in their own range: uint8 to uint32, int or float.

    Subsampled chroma is repeated; orientation and photometric interpretation are not applied.

    Raises:
        UnreadablePicture: the file is damaged, or uses a predictor that is not known.

    """
    if directory.subsampling != (1, 1):
        return _subsampled(data, directory)
    width, height = directory.size
    planes = min(directory.planes, directory.used)  # others may be empty
    across = directory.samples if directory.planes == 1 else 1  # samples of a pixel in one plane
    tile = directory.number(tags.TILE_WIDTH, 0)
    if tile < 0 or tile > LARGEST_TILE:
        raise unsupported("TIFF", f"a tile of {tile} pixels across", tags.ADVICE)
    padded = -(-width // tile) * tile if tile else width
    row = tile or width
    row_bytes = -(-row * across * directory.bits // 8)
    made = []
    for plane in range(planes):
        coded = _plane(data, directory, plane, padded // row * row_bytes, height, row_bytes if tile else 0)
        values = _values(coded.reshape(height, padded // row, row_bytes), directory, row, across)
        made.append(values.reshape(height, padded, across)[:, :width])
    return made[0] if planes == 1 else np.concatenate(made, axis=2)


def _plane(data: bytes, directory: Directory, plane: int, width: int, height: int, tile: int) -> Pixels:
    """Decompress one plane to bytes (height, width)."""
    changed: dict[int, tuple[int, ...]]
    if tile:
        changed = {tags.TILE_WIDTH: (tile,), tags.TILE_LENGTH: (directory.number(tags.TILE_LENGTH, 0),)}
        lists = tags.TILE_OFFSETS, tags.TILE_COUNTS
    else:
        changed = {tags.ROWS_PER_STRIP: (min(height, directory.number(tags.ROWS_PER_STRIP, height)),)}
        lists = tags.STRIP_OFFSETS, tags.STRIP_COUNTS
    for tag in lists:
        values = tuple(int(value) for value in directory.numbers(tag))
        share = len(values) // directory.planes
        if values:
            changed[tag] = values[plane * share : (plane + 1) * share]
    changed |= {tags.WIDTH: (width,), tags.LENGTH: (height,), tags.BITS: (8,), tags.PHOTOMETRIC: (1,)}
    changed |= {each: (directory.number(each, 1),) for each in (tags.COMPRESSION, tags.FILL_ORDER)}
    return _decompressed(tags.relabelled(data, directory.order, changed))


def _decompressed(data: bytes) -> Pixels:
    try:
        picture = TiffImageFile(io.BytesIO(data))
        picture.load()
    except Image.DecompressionBombError as error:
        raise UnreadablePicture("the TIFF's samples take too many bytes", "send 8 bits per channel") from error
    except DAMAGED as error:
        raise damaged("TIFF", error) from error
    return np.asarray(picture)


def _values(coded: Pixels, directory: Directory, row: int, across: int) -> Stored:
    """Interpret rows of bytes (H, N, B) as samples (H, N, ``row * across``)."""
    bits, order = directory.bits, directory.order
    predictor = directory.number(tags.PREDICTOR, 1) if directory.compression in WITH_PREDICTOR else 1
    if predictor not in (1, DIFFERENCES, FLOAT_DIFFERENCES) or (predictor > 1 and bits not in (8, 16, 32, 64)):
        raise unsupported("TIFF", f"the predictor {predictor} for {bits} bits", tags.ADVICE)
    if bits not in (8, 16, 32, 64):
        return _unpacked(coded, bits, row * across)
    kind = {tags.UNSIGNED: "u", tags.SIGNED: "i", tags.FLOAT: "f"}[directory.format]
    final = np.dtype(f"{order}{kind}{bits // 8}")
    if predictor == FLOAT_DIFFERENCES:
        # The bytes of a row are stored by significance, most significant first, as differences.
        planes = _summed(coded, across).reshape(*coded.shape[:2], bits // 8, -1)
        native = np.ascontiguousarray(planes.swapaxes(2, 3)).view(f">{kind}{bits // 8}")[..., 0]
        return native.astype(final.newbyteorder("="))
    values = np.ascontiguousarray(coded).view(f"{order}u{bits // 8}").astype(f"u{bits // 8}", copy=False)
    if predictor == DIFFERENCES:
        values = _summed(values, across)
    return values.view(final.newbyteorder("="))


def _summed(values: Stored, across: int) -> Stored:
    """Undo differences between each sample and that of the pixel to its left."""
    pixels = values.reshape(*values.shape[:2], -1, across)
    return np.cumsum(pixels, axis=2, dtype=values.dtype).reshape(values.shape)


def _unpacked(coded: Pixels, bits: int, count: int) -> Stored:
    """Unpack samples of 1 to 15 bits, most significant bit first; rows begin at whole bytes."""
    kind = np.uint8 if bits <= 8 else np.uint16
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(kind)
    values = np.empty((*coded.shape[:2], count), kind)
    for at in range(0, len(coded), ROWS_AT_ONCE):
        rows = coded[at : at + ROWS_AT_ONCE]
        digits = np.unpackbits(rows, axis=2, count=count * bits).reshape(*rows.shape[:2], count, bits)
        np.matmul(digits, weights, out=values[at : at + ROWS_AT_ONCE])
    return values


def _subsampled(data: bytes, directory: Directory) -> Stored:
    """Read YCbCr whose blocks of pixels share their chroma: Y of each pixel of a block, then Cb and Cr."""
    (width, height), (across, down) = directory.size, directory.subsampling
    wide, high = -(-width // across), -(-height // down)
    unit = across * down + 2
    rows = min(height, directory.number(tags.ROWS_PER_STRIP, height))
    changed = {each: tuple(map(int, directory.numbers(each))) for each in (tags.STRIP_OFFSETS, tags.STRIP_COUNTS)}
    changed = {tag: values for tag, values in changed.items() if values}
    changed |= {tags.WIDTH: (wide * unit,), tags.LENGTH: (high,), tags.ROWS_PER_STRIP: (-(-rows // down),)}
    changed |= {tags.BITS: (8,), tags.PHOTOMETRIC: (1,)}
    changed |= {each: (directory.number(each, 1),) for each in (tags.COMPRESSION, tags.FILL_ORDER)}
    if directory.compression in WITH_PREDICTOR and directory.number(tags.PREDICTOR, 1) != 1:
        raise unsupported("TIFF", "a predictor for subsampled YCbCr", tags.ADVICE)
    blocks = _decompressed(tags.relabelled(data, directory.order, changed)).reshape(high, wide, unit)
    whole = np.empty((high, down, wide, across, 3), np.uint8)
    whole[..., 0] = blocks[..., :-2].reshape(high, wide, down, across).swapaxes(1, 2)
    whole[..., 1:] = blocks[:, None, :, None, -2:]
    return whole.reshape(high * down, wide * across, 3)[:height, :width]
