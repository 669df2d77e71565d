"""The answers of the service as Python objects. Fields that a newer service adds are ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from pranet_client.errors import RequestFailed
from pranet_client.masks import decode_run_lengths

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class _Parsed:
    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the JSON of the service."""
        return cls(**{each.name: body[each.name] for each in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Model(_Parsed):
    """The weights that made an answer, and what they ran on."""

    model_id: str
    weights_sha256: str
    engine: str
    device: str
    precision: str


@dataclass(frozen=True)
class Presence(_Parsed):
    """Whether the frame shows a polyp at all: a score from the threshold up says so."""

    score: float  # calibrated probability, 0 to 1
    threshold: float


@dataclass(frozen=True)
class Polyp(_Parsed):
    """One connected region of the mask; coordinates are pixels of the upright picture."""

    polygon: Sequence[tuple[int, int]]  # outer outline along the edges of pixels, x, y
    bounding_box: tuple[int, int, int, int]  # x, y, width, height
    area_fraction: float  # of the picture, 0 to 1
    centroid: tuple[float, float]  # x, y
    mean_probability: float  # over its pixels, 0 to 1

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the JSON of the service, whose lists are tuples here."""
        polygon = tuple((x, y) for x, y in body["polygon"])
        pairs = {name: tuple(body[name]) for name in ("bounding_box", "centroid")}
        return super().parse({**body, **pairs, "polygon": polygon})


@dataclass(frozen=True)
class Segmentation:
    """The answer for one picture."""

    width: int  # pixels of the picture as a person sees it, after its EXIF orientation
    height: int
    polyps: Sequence[Polyp]  # largest first
    presence: Presence | None  # None if the weights have no such score
    quality: Sequence[str]  # problems of the picture: black, too_dark, saturated, blurred
    threshold: float  # probability above which a pixel is polyp
    times: Mapping[str, float]  # milliseconds by stage: decode, preprocess, queue, infer, post, encode, total
    model: Model
    batch_size: int  # pictures that were computed together with this one
    request_id: str
    run_lengths: Sequence[int]  # COCO's uncompressed RLE: column by column, zeros first

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the service's ``output=json``."""
        presence = body["presence"]
        return cls(
            width=body["width"],
            height=body["height"],
            polyps=[Polyp.parse(each) for each in body["polyps"]],
            presence=presence and Presence.parse(presence),
            quality=body.get("quality", ()),  # earlier services do not judge it
            threshold=body["threshold"],
            times=body["timings_ms"],
            model=Model.parse(body["model"]),
            batch_size=body["batch_size"],
            request_id=body["request_id"],
            run_lengths=body["rle"]["counts"],
        )

    @property
    def mask(self) -> "npt.NDArray[np.uint8]":
        """Return the mask, uint8 (height, width): 255 on polyps, 0 elsewhere.

        Raises:
            InvalidInput: NumPy is not installed.

        """
        return decode_run_lengths(self.run_lengths, self.width, self.height)


@dataclass(frozen=True)
class BatchAnswer:
    """What became of one picture of a batch: a segmentation, or the error of this picture alone."""

    index: int  # of the picture in what was given, from 0
    segmentation: Segmentation | None
    error: RequestFailed | None


@dataclass(frozen=True)
class Info:
    """The weights that answer now, and the limits of the service."""

    service_version: str
    model: Model
    input_size: int  # side of the network's square input, pixels
    threshold: float  # used if a request gives none
    max_batch_size: int
    max_queue_size: int
    max_image_bytes: int
    max_image_pixels: int
    processes: int = 1  # that share the ports; earlier versions do not say

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read ``GET /info``."""
        names = {each.name for each in fields(cls)} - {"model"}
        return cls(model=Model.parse(body["model"]), **{name: body[name] for name in names if name in body})
