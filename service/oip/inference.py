"""One request of the protocol, whatever carried it: every picture is a frame of the data path like any other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pranet_client.pictures import Picture
from service.errors import InvalidRequest, TooManyPixels
from service.frames import codec
from service.frames.frame import Frame, Options, Output, Segmentation
from service.observability.stage_times import StageTimes
from service.oip.tensors import Array
from service.runtime import Service
from service.tasks.group import Together


@dataclass(frozen=True, slots=True)
class Inferred:
    """The outputs of a request: arrays (N, H, W)."""

    outputs: dict[Output, Array]
    model_id: str
    times: StageTimes  # the longest of each stage


async def infer(service: Service, pictures: Sequence[Picture], options: Options, deadline: float) -> Inferred:
    """Segment the pictures of a request at once; cancelling the caller drops the work.

    Raises:
        InvalidRequest: they differ in size.
        TooManyPixels: together they have more than ``MAX_IMAGE_PIXELS``; nothing was decoded.
        ServiceError: any picture's own; the others are given up.

    """
    await asyncio.to_thread(_check_sizes, pictures, service.settings.max_image_pixels)
    async with Together() as tasks:
        frames = [
            tasks.create_task(service.segmenter.segment(Frame(source=picture, options=options, deadline=deadline)))
            for picture in pictures
        ]
    return await asyncio.to_thread(_stacked, [frame.result() for frame in frames], options)


def _check_sizes(pictures: Sequence[Picture], max_pixels: int) -> None:
    sizes = [codec.size(picture, max_pixels) for picture in pictures]
    if different := [size for size in sizes if size != sizes[0]]:
        (width, height), (other_width, other_height) = sizes[0], different[0]
        raise InvalidRequest(
            f"pictures of {width}x{height} and {other_width}x{other_height} pixels do not fit into one tensor; "
            "send those of different sizes in requests of their own"
        )
    if sum(width * height for width, height in sizes) > max_pixels:
        raise TooManyPixels(f"the pictures together have more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send fewer")


def _stacked(frames: Sequence[Segmentation], options: Options) -> Inferred:
    outputs = {name: np.stack([frame.arrays[name] for frame in frames]) for name in options.arrays}
    return Inferred(outputs, frames[0].model.model_id, StageTimes.longest(frame.times for frame in frames))
