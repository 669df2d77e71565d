"""The JSON of an answered frame, the same for REST, archives, WebSocket streams and the command line."""

from typing import Any, Self

from pydantic import BaseModel, Field

from service.frames.frame import Output, Segmentation
from service.frames.quality import Quality
from service.frames.shapes import Polyp


class ModelBody(BaseModel):
    """The weights that produced an answer, with engine, device, precision and input size."""

    model_config = {"protected_namespaces": ()}

    model_id: str
    weights_sha256: str
    engine: str
    device: str
    precision: str
    input_size: int = Field(description="Side of the network's square input, pixels.")


class PolypBody(BaseModel):
    """One connected region of the mask; coordinates are pixels of the upright image."""

    polygon: list[tuple[int, int]] = Field(description="Outer outline along the edges of pixels, (x, y), as in COCO.")
    bounding_box: tuple[int, int, int, int] = Field(description="x, y, width, height.")
    area_fraction: float = Field(description="Share of the image, 0 to 1.")
    centroid: tuple[float, float] = Field(description="x, y.")
    mean_probability: float = Field(description="Over its pixels, 0 to 1.")

    @classmethod
    def of(cls, polyp: Polyp) -> Self:
        """Convert a polyp of ``service.frames.shapes``."""
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
    threshold: float = Field(description="Scores at or above this mean that the picture shows a polyp.")

    @classmethod
    def of(cls, segmentation: Segmentation) -> Self | None:
        """Return the score of an answered frame; None if the weights have no presence calibration."""
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
    presence: PresenceBody | None = Field(description="null if the weights have no such score.")
    quality: list[Quality] = Field(description="Problems of the picture, such as blurred.")
    timings_ms: dict[str, float]
    batch_size: int = Field(description="Frames in the batch that held this one.")
    model: ModelBody

    @classmethod
    def of(cls, segmentation: Segmentation, request_id: str) -> Self:
        """Build the body for a frame that was segmented with ``Output.JSON``."""
        return cls(request_id=request_id, quality=list(segmentation.quality), **describe(segmentation))


def describe(segmentation: Segmentation) -> dict[str, Any]:
    """Return the JSON fields of an answered frame, without request id; ``rle`` and ``polyps`` only if it has them."""
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
