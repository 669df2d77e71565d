"""Inference for both transports of the protocol: each picture of a request becomes one frame of the data path."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pranet_client.pictures import Picture, RawPicture
from service.dicom import recognition
from service.errors import (
    InferenceFailed,
    InvalidRequest,
    ServiceError,
    TooManyBytes,
    TooManyPixels,
    UndecodableImage,
    UnsupportedImage,
)
from service.frames import codec
from service.frames.frame import Frame, Options, Output, Segmentation, outdated
from service.frames.segmenter import Segmenter
from service.observability.stage_times import StageTimes
from service.oip.tensors import Array

# Errors of one picture of a request; others, such as a full queue, are of the whole request.
OF_PICTURE = (InferenceFailed, InvalidRequest, TooManyPixels, UndecodableImage, UnsupportedImage)


@dataclass(frozen=True, slots=True)
class Inferred:
    """The outputs of a request of N pictures."""

    outputs: dict[Output, Array]  # (N, H, W): mask uint8 0 or 255, probability float32 0 to 1
    model_id: str
    server_timing: str  # value of a Server-Timing header, with the longest time of each stage

    @classmethod
    def of(cls, frames: Sequence[Segmentation]) -> Self:
        """Stack the arrays of the pictures, which have one size."""
        outputs = {name: np.stack([frame.arrays[name] for frame in frames]) for name in frames[0].arrays}
        longest = StageTimes.longest([frame.times for frame in frames])
        return cls(outputs, frames[0].model.model_id, longest.server_timing())


def check_sizes(pictures: Sequence[Picture], max_bytes: int, max_pixels: int) -> int:
    """Check that the pictures of a request fit into one tensor, and return its pixels; only their headers are read.

    Raises:
        InvalidRequest: they differ in size.
        TooManyBytes: together they have more than ``max_bytes``.
        TooManyPixels: together they have more than ``max_pixels``.
        ServiceError: the header of a picture is refused; the message names the picture, as in ``infer``.

    """
    if sum(len(each.data if isinstance(each, RawPicture) else each) for each in pictures) > max_bytes:
        told = f"the pictures together have more than {max_bytes} bytes (MAX_IMAGE_BYTES)"
        raise TooManyBytes(f"{told}; send fewer or smaller ones")
    sizes = [_size(pictures, index, max_pixels) for index in range(len(pictures))]
    if different := [size for size in sizes if size != sizes[0]]:
        (width, height), (other_width, other_height) = sizes[0], different[0]
        raise InvalidRequest(
            f"pictures of {width}x{height} and {other_width}x{other_height} pixels do not fit into one tensor; "
            "send one request for each size"
        )
    pixels = sum(width * height for width, height in sizes)
    if pixels > max_pixels:
        raise TooManyPixels(f"the pictures together have more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send fewer")
    return pixels


def _size(pictures: Sequence[Picture], index: int, max_pixels: int) -> tuple[int, int]:
    picture = pictures[index]
    try:
        if isinstance(picture, RawPicture) or picture.startswith(codec.STARTS):
            return codec.size(picture, max_pixels)
        return recognition.size(picture, max_pixels)
    except OF_PICTURE as error:
        _name_picture(error, index, len(pictures))
        raise


def _name_picture(error: ServiceError, index: int, count: int) -> None:
    """Put before the message of an error which picture it is of, if there are several."""
    if count > 1:
        error.detail = f"picture {index + 1} of {count}: {error.detail}"
        error.args = (error.detail,)


async def infer(
    segmenter: Segmenter, pictures: Sequence[Picture], options: Options, deadline: float
) -> list[Segmentation]:
    """Segment the pictures of a request concurrently, all with the same weights; cancelling the caller drops the work.

    Raises:
        ServiceError: the first error of a picture, which the message names if there are several; the work for the
            others is cancelled.

    """
    answers = await _segmented(segmenter, pictures, range(len(pictures)), options, deadline)
    while again := outdated(answers):
        renewed = await _segmented(segmenter, pictures, again, options, deadline)
        for index, answer in zip(again, renewed, strict=True):
            answers[index] = answer
    return answers


async def _segmented(
    segmenter: Segmenter, pictures: Sequence[Picture], chosen: Sequence[int], options: Options, deadline: float
) -> list[Segmentation]:
    frames = [Frame(source=pictures[index], options=options, deadline=deadline) for index in chosen]
    tasks = [asyncio.ensure_future(segmenter.segment(frame)) for frame in frames]
    try:
        return await asyncio.gather(*tasks)
    except BaseException as error:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(error, OF_PICTURE):
            _name_picture(error, chosen[outcomes.index(error)], len(pictures))
        raise
