from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    OUTPUT_MASK: _ClassVar[Output]
    OUTPUT_PROBABILITY: _ClassVar[Output]
    OUTPUT_OVERLAY: _ClassVar[Output]
    OUTPUT_POLYPS: _ClassVar[Output]
OUTPUT_UNSPECIFIED: Output
OUTPUT_MASK: Output
OUTPUT_PROBABILITY: Output
OUTPUT_OVERLAY: Output
OUTPUT_POLYPS: Output

class SegmentRequest(_message.Message):
    __slots__ = ("image", "threshold", "output", "probability_depth", "roi", "request_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_DEPTH_FIELD_NUMBER: _ClassVar[int]
    ROI_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    threshold: float
    output: Output
    probability_depth: int
    roi: str
    request_id: str
    def __init__(self, image: _Optional[bytes] = ..., threshold: _Optional[float] = ..., output: _Optional[_Union[Output, str]] = ..., probability_depth: _Optional[int] = ..., roi: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("request_id", "width", "height", "png", "polyps", "run_lengths", "threshold", "model", "times", "batch_size")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    POLYPS_FIELD_NUMBER: _ClassVar[int]
    RUN_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    width: int
    height: int
    png: bytes
    polyps: _containers.RepeatedCompositeFieldContainer[Polyp]
    run_lengths: _containers.RepeatedScalarFieldContainer[int]
    threshold: float
    model: Model
    times: StageTimes
    batch_size: int
    def __init__(self, request_id: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., png: _Optional[bytes] = ..., polyps: _Optional[_Iterable[_Union[Polyp, _Mapping]]] = ..., run_lengths: _Optional[_Iterable[int]] = ..., threshold: _Optional[float] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., times: _Optional[_Union[StageTimes, _Mapping]] = ..., batch_size: _Optional[int] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    width: int
    height: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Polyp(_message.Message):
    __slots__ = ("polygon", "bounding_box", "area_fraction", "centroid", "mean_probability")
    POLYGON_FIELD_NUMBER: _ClassVar[int]
    BOUNDING_BOX_FIELD_NUMBER: _ClassVar[int]
    AREA_FRACTION_FIELD_NUMBER: _ClassVar[int]
    CENTROID_FIELD_NUMBER: _ClassVar[int]
    MEAN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    polygon: _containers.RepeatedCompositeFieldContainer[Point]
    bounding_box: Box
    area_fraction: float
    centroid: Point
    mean_probability: float
    def __init__(self, polygon: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., bounding_box: _Optional[_Union[Box, _Mapping]] = ..., area_fraction: _Optional[float] = ..., centroid: _Optional[_Union[Point, _Mapping]] = ..., mean_probability: _Optional[float] = ...) -> None: ...

class StageTimes(_message.Message):
    __slots__ = ("decode", "preprocess", "queue", "infer", "post", "encode", "total")
    DECODE_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    INFER_FIELD_NUMBER: _ClassVar[int]
    POST_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    decode: float
    preprocess: float
    queue: float
    infer: float
    post: float
    encode: float
    total: float
    def __init__(self, decode: _Optional[float] = ..., preprocess: _Optional[float] = ..., queue: _Optional[float] = ..., infer: _Optional[float] = ..., post: _Optional[float] = ..., encode: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("model_id", "weights_sha256", "engine", "device", "precision")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    weights_sha256: str
    engine: str
    device: str
    precision: str
    def __init__(self, model_id: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., engine: _Optional[str] = ..., device: _Optional[str] = ..., precision: _Optional[str] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("model", "service_version", "input_size", "threshold", "max_batch_size", "max_image_bytes", "max_image_pixels")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_VERSION_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    model: Model
    service_version: str
    input_size: int
    threshold: float
    max_batch_size: int
    max_image_bytes: int
    max_image_pixels: int
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., service_version: _Optional[str] = ..., input_size: _Optional[int] = ..., threshold: _Optional[float] = ..., max_batch_size: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ...) -> None: ...
