"""Compares ways to do the work around the network: decode, resize, upsample and threshold, encode as PNG.

The service uses the fastest way that keeps the masks within the fidelity bounds; this table is the evidence.
"""

import importlib.util
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image

from model import transforms
from model.transforms import SIZE, Floats, Pixels
from service.frames import codec

REPEATS = 15
MAX_PIXELS = 178_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """One way to do one part of the work."""

    part: str
    way: str
    cpu_ms: float  # mean over the pictures, the best of several rounds
    note: str = ""  # difference from the first way, or the size of the output


def compare(images: Sequence[bytes], logits: Sequence[Floats]) -> Iterator[Part]:
    """Time every way on JPEG pictures and their logits (352, 352); the first way of each part is the service's."""
    pictures = [codec.decode(image, MAX_PIXELS) for image in images]
    arrays = [np.asarray(picture) for picture in pictures]
    reference = [transforms.to_input(picture) for picture in pictures]
    for name, decode in _decoders().items():
        inputs = [transforms.to_input(Image.fromarray(np.asarray(decode(image)))) for image in images]
        yield Part("decode", name, _timed(decode, images), _apart(inputs, reference))
    for name, way in _resizers().items():
        source = arrays if "OpenCV" in name else pictures
        yield Part("resize", name, _timed(way, source), _apart([_planes(way(each)) for each in source], reference))
    sized = [(each, picture.size) for each, picture in zip(logits, pictures, strict=True)]
    masks = [_compare_upsampled(each) for each in sized]
    for name, finish in _finishers().items():
        disagree = np.mean([np.mean(finish(each) != mask) for each, mask in zip(sized, masks, strict=True)])
        yield Part("mask", name, _timed(finish, sized), f"{disagree:.5%} of pixels differ")
    for name, encode in _encoders().items():
        size = float(np.mean([len(encode(mask)) for mask in masks]))
        yield Part("encode", name, _timed(encode, masks), f"{size:,.0f} bytes")


def _decoders() -> dict[str, Callable[[bytes], Image.Image | Pixels]]:
    def drafted(data: bytes) -> Image.Image:
        picture = Image.open(io.BytesIO(data))
        picture.draft("RGB", (SIZE, SIZE))  # scaled inverse DCT, where the picture is at least twice as large
        return picture.convert("RGB")

    def opencv(data: bytes) -> Pixels:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(np.asarray(bgr), cv2.COLOR_BGR2RGB), dtype=np.uint8)

    found: dict[str, Callable[[bytes], Image.Image | Pixels]] = {
        "Pillow, as served": partial(codec.decode, max_pixels=MAX_PIXELS),
        "Pillow, scaled DCT": drafted,
        "OpenCV": opencv,
    }
    if importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        found["simplejpeg"] = simplejpeg.decode_jpeg
        found["simplejpeg, fast DCT"] = partial(simplejpeg.decode_jpeg, fastdct=True, fastupsample=True)
    return found


def _planes(resized: Image.Image | Pixels) -> Pixels:
    pixels = np.asarray(resized)
    return pixels if pixels.shape[0] == 3 else pixels.transpose(2, 0, 1)


def _resizers() -> dict[str, Callable[..., Image.Image | Pixels]]:
    def opencv(method: int, pixels: Pixels) -> Pixels:
        return np.asarray(cv2.resize(pixels, (SIZE, SIZE), interpolation=method), dtype=np.uint8)

    served = "without" if transforms.compiled is None else "with"
    return {
        f"bilinear, antialiased, {served} resize.c, as served": transforms.to_input,
        "Pillow bilinear, antialiased": lambda each: each.resize((SIZE, SIZE), Image.Resampling.BILINEAR),
        "Pillow bilinear after whole-number reduction": lambda each: each.resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR, reducing_gap=1.0
        ),
        "OpenCV area": partial(opencv, cv2.INTER_AREA),
        "OpenCV bilinear": partial(opencv, cv2.INTER_LINEAR),
    }


Sized = tuple[Floats, tuple[int, int]]


def _compare_upsampled(each: Sized) -> Pixels:
    return transforms.to_mask(transforms.upsample(each[0], *each[1]), 0.5)


def _finishers() -> dict[str, Callable[[Sized], Pixels]]:
    def probabilities(each: Sized) -> Pixels:
        resized = Image.fromarray(transforms.sigmoid(each[0])).resize(each[1], Image.Resampling.BILINEAR)
        return (np.asarray(resized) > 0.5).astype(np.uint8) * 255

    def bytes_(each: Sized) -> Pixels:
        levels = np.clip(each[0] * 8 + 128, 0, 255).astype(np.uint8)
        resized = cv2.resize(levels, each[1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.threshold(resized, 128, 255, cv2.THRESH_BINARY)[1], dtype=np.uint8)

    return {
        "OpenCV logits, compared, as served": _compare_upsampled,
        "Pillow probabilities": probabilities,
        "OpenCV logits in 8 bits": bytes_,
    }


def _encoders() -> dict[str, Callable[[Pixels], bytes]]:
    def opencv(options: Sequence[int], mask: Pixels) -> bytes:
        return cv2.imencode(".png", mask, options)[1].tobytes()

    def pillow(mode: str, level: int, mask: Pixels) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(mask).convert(mode).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()

    level, strategy, rle = cv2.IMWRITE_PNG_COMPRESSION, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE
    unfiltered, none = cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE
    return {
        "zlib-ng, no filter, run lengths, as served": codec.encode_mask,
        "OpenCV level 1, no filter, run lengths": partial(opencv, (level, 1, strategy, rle, unfiltered, none)),
        "OpenCV level 1, no filter": partial(opencv, (level, 1, unfiltered, none)),
        "OpenCV level 1, run lengths": partial(opencv, (level, 1, strategy, rle)),
        "OpenCV level 1": partial(opencv, (level, 1)),
        "OpenCV level 3": partial(opencv, (level, 3)),
        "OpenCV 1 bit": partial(opencv, (level, 1, cv2.IMWRITE_PNG_BILEVEL, 1)),
        "Pillow level 1": partial(pillow, "L", 1),
        "Pillow 1 bit, level 1": partial(pillow, "1", 1),
    }


def _timed(function: Callable[..., object], items: Sequence[object]) -> float:
    """Return milliseconds of this thread's CPU time per item, the best of several rounds."""
    rounds = []
    for _ in range(REPEATS):
        began = time.thread_time()
        for item in items:
            function(item)
        rounds.append(time.thread_time() - began)
    return 1e3 * min(rounds) / len(items)


def _apart(inputs: Sequence[Pixels], reference: Sequence[Pixels]) -> str:
    differences = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(inputs, reference, strict=True)]
    mean, most = np.mean([each.mean() for each in differences]), max(int(each.max()) for each in differences)
    return f"network input differs by {mean:.2f} of 255, at most {most}"
