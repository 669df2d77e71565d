"""What ``POST /segment`` and ``/segment/batch`` take and return: query parameters, and the schemas of their bodies."""

from typing import Any, Literal

from pydantic import Field

from service.dicom.availability import MEDIA_TYPE as DICOM_TYPE
from service.dicom.wanted import Wanted
from service.frames.foreign import ZIP_TYPES
from service.frames.frame import Output
from service.http.form import FILE_FIELD, MULTIPART
from service.http.multipart_related import RELATED
from service.options import FrameOptions
from service.rest.archive_routes import ANSWER_TYPES, JSON_TYPE, MIXED, NDJSON, PNG_TYPE

# Of a request that names none, by the type of its answer, if that is not a mask.
OUTPUTS: dict[str | None, Output] = {JSON_TYPE: Output.JSON}
BINARY = {"type": "string", "format": "binary"}
IMAGE_TYPES = ("image/jpeg", PNG_TYPE, "image/webp", "image/bmp", "image/tiff", "application/octet-stream", DICOM_TYPE)
ARCHIVE_ANSWERS = {kind: {"schema": BINARY} for kind in ANSWER_TYPES}
# FastAPI adds JSON, and writes into what it is given.
SEGMENT_ANSWERS = {kind: {"schema": dict(BINARY)} for kind in (PNG_TYPE, DICOM_TYPE, NDJSON, MIXED)}


class SegmentQuery(FrameOptions):
    """Query parameters of ``POST /segment``."""

    omit_empty: bool = Field(False, description="Leave frames without a polyp out of a DICOM Segmentation.")
    segmentation_type: Literal["binary", "labelmap"] | None = Field(
        None,
        description="binary: a DICOM Segmentation with one bit a pixel (default). "
        "labelmap: a Label Map Segmentation with one byte a pixel.",
    )

    @property
    def wanted(self) -> Wanted:
        """The DICOM Segmentation that the parameters describe."""
        return Wanted(self.segmentation_type or "binary", self.omit_empty)


def _form(file: dict[str, Any], options: type[FrameOptions]) -> dict[str, Any]:
    """Return the schema of a form of one file or several, whose other fields are the parameters of the query."""
    return {
        "type": "object",
        "required": [FILE_FIELD],
        "properties": {FILE_FIELD: file, **options.model_json_schema()["properties"]},
        "additionalProperties": False,
    }


REQUEST_BODY = {
    "required": True,
    "content": {kind: {"schema": BINARY} for kind in IMAGE_TYPES}
    | {MULTIPART: {"schema": _form(BINARY, SegmentQuery)}, RELATED: {"schema": BINARY}},
}
ARCHIVE_BODY = {
    "required": True,
    "content": {
        ZIP_TYPES[0]: {"schema": BINARY},
        MULTIPART: {"schema": _form({"type": "array", "items": BINARY}, FrameOptions)},
        RELATED: {"schema": BINARY},
    },
}
