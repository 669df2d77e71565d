"""JSON bodies of the REST interface, except the answers of frames, which are in ``service.answers``."""

from pydantic import BaseModel, Field

from service.answers import ModelBody


class Problem(BaseModel):
    """An error as problem details (RFC 9457)."""

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
    threshold: float = Field(description="Used if a request gives none.")
    max_batch_size: int
    max_queue_size: int
    processes: int
    max_image_bytes: int
    max_image_pixels: int
