"""An answer of the service as a prediction of Label Studio: one region for each polyp."""

from typing import Any

from pranet_client.annotation.regions import Region, regions, simplified
from pranet_client.answers import Segmentation
from service.annotation import run_lengths
from service.annotation.labelling import Control


def prediction(answer: Segmentation, control: Control) -> dict[str, Any]:
    """Return the prediction for one task; without a polyp it has a score, and no regions."""
    return {
        "result": [_result(region, number, answer, control) for number, region in enumerate(regions(answer), 1)],
        "score": answer.presence and answer.presence.score,
        "model_version": answer.model.model_id,
    }


def _result(region: Region, number: int, answer: Segmentation, control: Control) -> dict[str, Any]:
    return {
        "id": f"polyp-{number}",
        "type": control.type,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "original_width": answer.width,
        "original_height": answer.height,
        "image_rotation": 0,  # the mask is that of the upright picture, which browsers show
        "score": region.polyp.mean_probability,
        "value": {**_shape(region, answer, control.type), control.type: [control.label]},
    }


def _shape(region: Region, answer: Segmentation, kind: str) -> dict[str, Any]:
    """Return the value of a region; positions are percentages of the picture's width and height."""
    wide, high = 100 / answer.width, 100 / answer.height
    if kind == "brushlabels":
        return {"format": "rle", "rle": run_lengths.encode(region.mask)}
    if kind == "polygonlabels":
        return {"points": [[x * wide, y * high] for x, y in simplified(region.polyp.polygon)], "closed": True}
    x, y, width, height = region.polyp.bounding_box
    return {"x": x * wide, "y": y * high, "width": width * wide, "height": height * high, "rotation": 0}
