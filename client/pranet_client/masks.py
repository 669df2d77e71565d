"""Reads the masks of the service into NumPy arrays, uint8 (height, width): 255 on polyps, 0 elsewhere."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pranet_client.inputs import require
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def read_mask(answer: pb.SegmentResponse) -> "npt.NDArray[np.uint8]":
    """Return the mask of an answer over gRPC, whose output is a mask or polyps, in any of its formats.

    Raises:
        InvalidInput: NumPy is not installed, or Pillow, which reads PNG.

    """
    numpy = require("numpy")
    if answer.run_lengths:
        return decode_run_lengths(answer.run_lengths, answer.width, answer.height)
    if answer.bits:
        rows = numpy.frombuffer(answer.bits, numpy.uint8).reshape(answer.height, -1)
        bits: npt.NDArray[np.uint8] = numpy.unpackbits(rows, axis=1, count=answer.width) * numpy.uint8(255)
        return bits
    png: npt.NDArray[np.uint8] = numpy.asarray(require("PIL.Image").open(io.BytesIO(answer.png)))
    return png


def decode_run_lengths(counts: Sequence[int], width: int, height: int) -> "npt.NDArray[np.uint8]":
    """Return the mask, uint8 (height, width), of COCO's uncompressed run lengths.

    Raises:
        InvalidInput: NumPy is not installed.

    """
    numpy = require("numpy")
    levels = numpy.arange(len(counts)) % 2 * 255
    mask: npt.NDArray[np.uint8] = numpy.repeat(levels.astype(numpy.uint8), counts).reshape(width, height).T.copy()
    return mask
