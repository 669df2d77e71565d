"""What happens to one frame in the CPU pool: before the device (decode, resize) and after it (mask, encode)."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model import transforms
from model.presence import Presence
from model.transforms import SIZE, Floats, Pixels
from pranet_client.pictures import Picture
from service.batching.queue import Priority
from service.frames import codec, regions, shapes
from service.frames.codec import Packed
from service.frames.regions import Box
from service.frames.shapes import Polyp
from service.observability.stage_times import StageTimes

cv2.setNumThreads(1)  # frames take a core each: more for one of them would only wait for those of the others

Scalar = TypeVar("Scalar", np.uint8, np.float32)


class Output(StrEnum):
    """What a frame is answered with."""

    MASK = "mask"
    PROBABILITY = "probability"
    OVERLAY = "overlay"
    JSON = "json"


class MaskFormat(StrEnum):
    """How a mask is written down."""

    PNG = "png"
    RLE = "rle"  # COCO's uncompressed run lengths
    BITS = "bits"  # one bit a pixel, rows padded to whole bytes, the leftmost pixel in the highest bit


@dataclass(frozen=True, slots=True)
class Options:
    """How one frame is to be segmented."""

    threshold: float = 0.5
    output: Output = Output.MASK
    depth: int = 8  # bits of a probability
    roi: str = "full"
    mask_format: MaskFormat = MaskFormat.PNG
    priority: Priority = Priority.SINGLE
    arrays: tuple[Output, ...] = ()  # MASK, PROBABILITY or both: answered as arrays, and ``output`` is not looked at


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded frame on its way to the device."""

    picture: Image.Image | None  # kept only where it is drawn on
    width: int
    height: int
    box: Box  # what the network sees of it
    pixels: Pixels  # uint8 (3, 352, 352)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An answer in the geometry of the whole frame: a PNG, a mask in another format, its polyps, or arrays."""

    png: bytes = b""
    bits: bytes = b""
    polyps: tuple[Polyp, ...] = ()
    run_lengths: tuple[int, ...] = ()
    presence: float | None = (
        None  # probability that the frame shows a polyp at all, where the weights have such a score
    )
    arrays: dict[Output, Pixels | Floats] = field(default_factory=dict)  # (H, W): mask 0 or 255, probability 0 to 1


def prepare(source: Picture | Packed, options: Options, max_pixels: int, times: StageTimes) -> Prepared:
    """Decode a picture and make the network's input of it.

    Raises:
        ServiceError: the image or the region of interest is refused.

    """
    drawn_on = options.output is Output.OVERLAY
    least_side = SIZE if options.roi == regions.FULL and not drawn_on else 0
    with times.measure("decode"):
        picture, (width, height) = codec.to_rgb(source, max_pixels, least_side)
    with times.measure("preprocess"):
        if least_side:
            box, seen = Box(0, 0, width, height), picture
        else:
            box = regions.locate(picture, options.roi)
            seen = regions.crop(picture, box)
        pixels = transforms.to_input(seen)
    return Prepared(picture if drawn_on else None, width, height, box, pixels)


def rehearse() -> None:
    """Decode and answer a black picture, so that no client waits for what libraries do on first use."""
    times = StageTimes()
    black = codec.encode_png(np.zeros((SIZE, SIZE, 3), np.uint8))
    frame = prepare(black, Options(), SIZE * SIZE, times)
    render(frame, np.full((SIZE, SIZE), -1, np.float32), Options(), times)


def render(
    frame: Prepared, logits: Floats, options: Options, times: StageTimes, presence: Presence | None = None
) -> Rendered:
    """Make the answer of a frame from its logits (352, 352)."""
    with times.measure("post"):
        score = None if presence is None else presence.score(logits)
        upsampled = transforms.upsample(logits, frame.box.width, frame.box.height)
        if options.arrays:
            return Rendered(arrays={name: _array(name, upsampled, frame, options.threshold) for name in options.arrays})
        if options.output is Output.PROBABILITY:
            levels = _levels(_in_frame(transforms.sigmoid(upsampled), frame), options.depth)
        else:
            mask = _in_frame(transforms.to_mask(upsampled, options.threshold), frame)
    with times.measure("encode"):
        if options.output is Output.PROBABILITY:
            rendered = Rendered(png=codec.encode_png(levels))
        elif options.output is Output.JSON:
            found = shapes.find_polyps(mask, _in_frame(upsampled, frame))
            rendered = Rendered(polyps=tuple(found), run_lengths=tuple(shapes.run_lengths(mask)))
        elif frame.picture is not None:
            rendered = Rendered(png=codec.encode_png(shapes.draw_overlay(np.asarray(frame.picture), mask)))
        else:
            rendered = _written(mask, options.mask_format)
    return replace(rendered, presence=score)


def _array(name: Output, upsampled: Floats, frame: Prepared, threshold: float) -> Pixels | Floats:
    if name is Output.PROBABILITY:
        return _in_frame(transforms.sigmoid(upsampled), frame)
    return _in_frame(transforms.to_mask(upsampled, threshold), frame)


def _written(mask: Pixels, form: MaskFormat) -> Rendered:
    if form is MaskFormat.RLE:
        return Rendered(run_lengths=tuple(shapes.run_lengths(mask)))
    if form is MaskFormat.BITS:
        return Rendered(bits=np.packbits(mask != 0, axis=1).tobytes())
    return Rendered(png=codec.encode_mask(mask))


def _in_frame(pixels: npt.NDArray[Scalar], frame: Prepared) -> npt.NDArray[Scalar]:
    """Place what was computed in the box into the whole frame; outside of it is 0."""
    if pixels.shape == (frame.height, frame.width):
        return pixels
    x, y, width, height = frame.box
    whole = np.zeros((frame.height, frame.width), pixels.dtype)
    whole[y : y + height, x : x + width] = pixels
    return whole


def _levels(probability: Floats, depth: int) -> Pixels | npt.NDArray[np.uint16]:
    """Stretch probabilities over the whole scale of ``depth`` bits, 8 or 16."""
    scaled: Floats = np.rint(probability * (2**depth - 1))
    return scaled.astype(np.uint16) if depth == 16 else scaled.astype(np.uint8)
