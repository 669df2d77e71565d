"""A frame, and the CPU stages of its processing: decode and resize before the device, render and encode after it."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model import transforms
from model.engines.predictor import ModelRef
from model.transforms import SIZE, Floats, Pixels
from pranet_client.pictures import Picture
from service.batching.queue import Entry, Priority
from service.frames import codec, quality, regions, shapes
from service.frames.codec import Packed
from service.frames.quality import Quality
from service.frames.regions import Box
from service.frames.shapes import Polyp
from service.observability.stage_times import StageTimes

cv2.setNumThreads(1)  # the CPU pool already has a thread for each core; more would only compete for the cores

NOTHING = Box(0, 0, 0, 0)

Scalar = TypeVar("Scalar", np.uint8, np.float32)


class Output(StrEnum):
    """The kinds of answers to a frame."""

    MASK = "mask"
    PROBABILITY = "probability"
    OVERLAY = "overlay"
    JSON = "json"
    MAPS = "maps"  # the four side outputs S6 to S3, side by side


JUDGED = frozenset({Output.PROBABILITY, Output.JSON})  # outputs that report the quality of a picture


class MaskFormat(StrEnum):
    """Encodings of a mask."""

    PNG = "png"
    RLE = "rle"  # COCO's uncompressed run lengths
    BITS = "bits"  # one bit per pixel, rows padded to whole bytes, the leftmost pixel in the highest bit


@dataclass(frozen=True, slots=True)
class Options:
    """The options for one frame, already validated."""

    threshold: float = 0.5  # probability above which a pixel is polyp
    output: Output = Output.MASK
    depth: int = 8  # bits of a probability, 8 or 16
    roi: str = "full"  # region of interest; ``service.frames.regions`` describes its forms
    mask_format: MaskFormat = MaskFormat.PNG
    priority: Priority = Priority.SINGLE
    arrays: tuple[Output, ...] = ()  # MASK, PROBABILITY or both: return arrays, and ignore ``output``


@dataclass(frozen=True, slots=True)
class Inference:
    """The network's result for one frame, and the weights that computed it."""

    logits: Floats  # S3, float32 (352, 352)
    model: ModelRef


@dataclass(eq=False, slots=True, kw_only=True)
class Frame(Entry[Pixels, Inference]):
    """One picture from the transport to its answer; each stage fills in the fields that the next one needs.

    ``item``, uint8 RGB (3, 352, 352) or of the service's input size, is the network's input, and ``result`` its output.
    """

    source: Picture | Packed | None  # None once it is decoded
    options: Options = Options()
    waits_for_place: bool = False  # if the queue is full, wait instead of failing with ``QueueFull``
    recall: "Callable[[Frame], Awaitable[None]] | None" = None  # may set ``result`` instead of the network (streams)
    refine: "Callable[[Frame], Awaitable[None]] | None" = None  # changes ``result`` before it is rendered (streams)
    begun: bool = False  # it has a place in the queue, and is decoded
    made: float = 0.0  # when ``Segmenter.segment`` got it, seconds, by the clock of ``times``
    times: StageTimes = field(default_factory=StageTimes)
    width: int = 0  # of the upright picture, pixels
    height: int = 0
    box: Box = NOTHING  # region of the picture that the network gets
    picture: Image.Image | None = None  # kept only for an overlay
    seen: Floats | None = None  # logits for the presence score, if others are drawn (streams)
    quality: tuple[Quality, ...] = ()  # problems of the picture; without a stream, for outputs in ``JUDGED`` only
    maps: list[Pixels] = field(default_factory=list)  # S6, S5, S4 and S3 for ``output=maps``, uint8 (352, 352) each

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record begin and end of the block as the times of a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = began, time.perf_counter()


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The answer of one frame, in the size of the upright picture; which fields are filled depends on its options."""

    width: int
    height: int
    options: Options
    model: ModelRef
    batch_size: int
    times: StageTimes
    presence: float | None = None  # probability that the frame shows a polyp; None if the weights have no such score
    quality: tuple[Quality, ...] = ()  # as of its ``Frame``
    png: bytes = b""
    bits: bytes = b""
    polyps: tuple[Polyp, ...] = ()
    run_lengths: tuple[int, ...] = ()
    arrays: dict[Output, Pixels | Floats] = field(default_factory=dict)  # (H, W): mask 0 or 255, probability 0 to 1

    def headers(self) -> dict[str, str]:
        """Return model, times, presence and quality, as far as known, as headers of a response or of its part."""
        headers = {"X-Model": self.model.model_id, "Server-Timing": self.times.server_timing()}
        if self.presence is not None and self.model.presence is not None:
            headers["X-Presence"] = _shown(self.presence, self.model.presence.threshold)
        if self.quality:
            headers["X-Quality"] = ", ".join(self.quality)
        return headers


def _shown(score: float, threshold: float) -> str:
    """Return score and operating point in the three decimals of RFC 9651; rounding never changes which is larger."""
    shown, limit = round(score, 3), round(threshold, 3)
    if score < threshold and shown >= limit:
        shown = max(0.0, limit - 0.001)
    return f"{shown:.3f};threshold={limit}"


def outdated(answers: Sequence[Segmentation]) -> list[int]:
    """Return the indices of answers with other weights than the last inference: weights were replaced meanwhile.

    An answer that is made of several frames names one model, so these frames are segmented again.
    """
    newest = max(answers, key=lambda answer: answer.times["infer"]).model.weights_sha256
    return [index for index, answer in enumerate(answers) if answer.model.weights_sha256 != newest]


def prepare(
    frame: Frame,
    max_pixels: int,
    input_size: int = SIZE,
    unpack: Callable[[bytes, int], Picture] | None = None,
) -> None:
    """Decode a frame's picture and make the network's input; runs on a CPU thread.

    Args:
        frame: not yet decoded.
        max_pixels: largest picture.
        input_size: side of the network's square input, pixels.
        unpack: is given what is none of the common pictures, and ``max_pixels``; returns a picture.

    Raises:
        ServiceError: the picture or the region of interest is refused.

    """
    options, source = frame.options, frame.source
    assert source is not None
    drawn_on = options.output is Output.OVERLAY
    least_side = input_size if options.roi == regions.FULL and not drawn_on else 0
    with frame.stage("decode"):
        source = source() if callable(source) else source
        if unpack and isinstance(source, bytes) and not source.startswith(codec.STARTS):
            source = unpack(source, max_pixels)
        picture, (frame.width, frame.height) = codec.to_rgb(source, max_pixels, least_side)
        frame.source = None  # frees up to MAX_IMAGE_BYTES before the frame waits for the device
    with frame.stage("preprocess"):
        if least_side:
            frame.box, seen = Box(0, 0, frame.width, frame.height), picture
        else:
            frame.box = regions.locate(picture, options.roi)
            seen = regions.crop(picture, frame.box)
        frame.item = transforms.to_input(seen, input_size)
        if options.output in JUDGED and frame.refine is None:  # a stream judges its frames by those before them, too
            frame.quality = tuple(quality.judge(quality.luma_of(frame.item)))
    frame.picture = picture if drawn_on else None


def warm_up_cpu() -> None:
    """Prepare and render a black picture, so that no client waits for the first-use setup of libraries."""
    frame = Frame(source=codec.encode_png(np.zeros((SIZE, SIZE, 3), np.uint8)))
    prepare(frame, SIZE * SIZE)
    frame.result = Inference(np.full((SIZE, SIZE), -1, np.float32), ModelRef("", "", "", "", ""))
    render(frame)


def render(frame: Frame) -> Segmentation:
    """Make the answer of a frame from the network's result; runs on a CPU thread."""
    options, result, box = frame.options, frame.result, frame.box
    assert result is not None
    score = None
    with frame.stage("post"):
        if result.model.presence is not None:
            score = result.model.presence.score(result.logits if frame.seen is None else frame.seen)
        logits = transforms.upsample(result.logits, box.width, box.height)
        if options.arrays:
            content: dict[str, Any] = {"arrays": {name: _array(name, logits, frame) for name in options.arrays}}
        elif options.output is Output.PROBABILITY:
            pixels = _levels(_in_frame(transforms.sigmoid(logits), frame), options.depth)
        elif options.output is Output.MAPS:
            pixels = _side_by_side(frame)
        else:
            pixels = _in_frame(transforms.to_mask(logits, options.threshold), frame)
    if not options.arrays:
        with frame.stage("encode"):
            content = _encoded(frame, pixels, logits)
    made = frame.width, frame.height, options, result.model, frame.batch_size, frame.times
    return Segmentation(*made, presence=score, quality=frame.quality, **content)


def _encoded(frame: Frame, pixels: Any, logits: Floats) -> dict[str, Any]:
    """Return the fields of a ``Segmentation`` for the requested output; ``pixels`` are grey levels or the mask."""
    output, mask_format = frame.options.output, frame.options.mask_format
    if output in (Output.PROBABILITY, Output.MAPS):
        return {"png": codec.encode_png(pixels)}
    if output is Output.JSON:
        found = shapes.find_polyps(pixels, _in_frame(logits, frame))
        return {"polyps": tuple(found), "run_lengths": tuple(shapes.run_lengths(pixels))}
    if output is Output.OVERLAY:
        return {"png": codec.encode_png(shapes.draw_overlay(np.asarray(frame.picture), pixels))}
    assert output is Output.MASK, f"{output} is encoded nowhere"
    if mask_format is MaskFormat.RLE:
        return {"run_lengths": tuple(shapes.run_lengths(pixels))}
    if mask_format is MaskFormat.BITS:
        return {"bits": np.packbits(pixels != 0, axis=1).tobytes()}
    return {"png": codec.encode_mask(pixels)}


def _array(name: Output, logits: Floats, frame: Frame) -> Pixels | Floats:
    if name is Output.PROBABILITY:
        return _in_frame(transforms.sigmoid(logits), frame)
    return _in_frame(transforms.to_mask(logits, frame.options.threshold), frame)


def _side_by_side(frame: Frame) -> Pixels:
    """Return the four maps in the size of the picture, side by side: uint8 (H, 4 W)."""
    width, height = frame.box.width, frame.box.height
    resized = [transforms.upsample(each.astype(np.float32), width, height) for each in frame.maps]
    return np.hstack([np.rint(_in_frame(each, frame)).astype(np.uint8) for each in resized])


def _in_frame(pixels: npt.NDArray[Scalar], frame: Frame) -> npt.NDArray[Scalar]:
    """Place the pixels of the frame's box into the whole frame, with 0 around them."""
    if pixels.shape == (frame.height, frame.width):
        return pixels
    x, y, width, height = frame.box
    whole = np.zeros((frame.height, frame.width), pixels.dtype)
    whole[y : y + height, x : x + width] = pixels
    return whole


def _levels(probability: Floats, depth: int) -> Pixels | npt.NDArray[np.uint16]:
    """Scale probabilities from 0 to 1 to the range of ``depth`` bits, 8 or 16."""
    scaled: Floats = np.rint(probability * (2**depth - 1))
    return scaled.astype(np.uint16) if depth == 16 else scaled.astype(np.uint8)
