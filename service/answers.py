"""An answered frame as JSON, in the one form that REST, archives, WebSocket streams and the command line share."""

from typing import Any, Self

from pydantic import BaseModel, Field

from service.frames.frame import Output, Segmentation
from service.frames.shapes import Polyp


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
        score, calibration = segmentation.presence, segmentation.model.presence
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
        """Describe a frame that was segmented with ``Output.JSON``."""
        return cls(request_id=request_id, **describe(segmentation))


def describe(segmentation: Segmentation) -> dict[str, Any]:
    """Return what is said of an answered frame beside a picture; polyps and run lengths only where it has them."""
    presence = PresenceBody.of(segmentation)
    described: dict[str, Any] = {
        "width": segmentation.width,
        "height": segmentation.height,
        "threshold": segmentation.options.threshold,
        "presence": presence.model_dump() if presence else None,
        "timings_ms": segmentation.times.milliseconds(),
        "batch_size": segmentation.batch_size,
        "model": ModelBody.model_validate(segmentation.model, from_attributes=True).model_dump(),
    }
    if segmentation.run_lengths:
        described["rle"] = {"size": (segmentation.height, segmentation.width), "counts": segmentation.run_lengths}
    if segmentation.options.output is Output.JSON:
        described["polyps"] = [PolypBody.of(polyp).model_dump() for polyp in segmentation.polyps]
    return described
