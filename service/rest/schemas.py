"""JSON bodies of the REST interface."""

from typing import Self

from pydantic import BaseModel, Field

from service.frames.segmenter import Segmentation
from service.frames.shapes import Polyp


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class ModelBody(BaseModel):
    """The weights behind an answer, and what runs them."""

    model_config = {"protected_namespaces": ()}

    model_id: str
    weights_sha256: str
    engine: str
    device: str
    precision: str


class PolypBody(BaseModel):
    """One connected region of the mask; pixels of the image as a person sees it."""

    polygon: list[tuple[int, int]] = Field(description="Outer outline, (x, y).")
    bounding_box: tuple[int, int, int, int] = Field(description="x, y, width, height.")
    area_fraction: float = Field(description="Of the image, 0 to 1.")
    centroid: tuple[float, float] = Field(description="x, y.")
    mean_probability: float = Field(description="Over its pixels, 0 to 1.")

    @classmethod
    def of(cls, polyp: Polyp) -> Self:
        """Copy a polyp."""
        return cls(
            polygon=polyp.polygon,
            bounding_box=polyp.bounding_box,
            area_fraction=polyp.area_fraction,
            centroid=polyp.centroid,
            mean_probability=polyp.mean_probability,
        )


class RunLengths(BaseModel):
    """The mask as COCO's uncompressed RLE: counts column by column, zeros first."""

    size: tuple[int, int] = Field(description="height, width")
    counts: list[int]


class PresenceBody(BaseModel):
    """Whether the frame shows a polyp at all."""

    score: float = Field(description="Calibrated probability, 0 to 1.")
    threshold: float = Field(description="Operating point of the weights: from here on a polyp is said to be present.")

    @classmethod
    def of(cls, segmentation: Segmentation) -> Self | None:
        """Return the score of an answered frame; None where the weights have none."""
        score, calibration = segmentation.rendered.presence, segmentation.model.presence
        return None if score is None or calibration is None else cls(score=score, threshold=calibration.threshold)


class SegmentationBody(BaseModel):
    """The answer of ``output=json``."""

    request_id: str
    width: int
    height: int
    threshold: float
    polyps: list[PolypBody] = Field(description="Largest first.")
    rle: RunLengths
    presence: PresenceBody | None = Field(description="null where the weights have no such score.")
    timings_ms: dict[str, float]
    batch_size: int = Field(description="Frames in the batch that this one was computed in.")
    model: ModelBody

    @classmethod
    def of(cls, segmentation: Segmentation, request_id: str) -> Self:
        """Describe an answered frame."""
        ref = segmentation.model
        return cls(
            request_id=request_id,
            width=segmentation.width,
            height=segmentation.height,
            threshold=segmentation.options.threshold,
            polyps=[PolypBody.of(polyp) for polyp in segmentation.rendered.polyps],
            rle=RunLengths(
                size=(segmentation.height, segmentation.width), counts=list(segmentation.rendered.run_lengths)
            ),
            presence=PresenceBody.of(segmentation),
            timings_ms=segmentation.times.milliseconds(),
            batch_size=segmentation.batch_size,
            model=ModelBody.model_validate(ref, from_attributes=True),
        )


class Info(BaseModel):
    """The answer of ``/info``."""

    service_version: str
    model: ModelBody
    input_size: int = Field(description="Side of the network's square input, pixels.")
    threshold: float = Field(description="Used where a request names none.")
    max_batch_size: int
    max_queue_size: int
    max_image_bytes: int
    max_image_pixels: int
