"""JSON bodies of the REST interface beside the answers of frames, which are in ``service.answers``."""

from pydantic import BaseModel, Field

from service.answers import ModelBody


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


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
