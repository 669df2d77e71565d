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

class Policy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_UNSPECIFIED: _ClassVar[Policy]
    POLICY_LATEST: _ClassVar[Policy]
    POLICY_EVERY: _ClassVar[Policy]

class MaskFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORMAT_UNSPECIFIED: _ClassVar[MaskFormat]
    MASK_FORMAT_PNG: _ClassVar[MaskFormat]
    MASK_FORMAT_RLE: _ClassVar[MaskFormat]
    MASK_FORMAT_BITS: _ClassVar[MaskFormat]

class PixelFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIXEL_FORMAT_UNSPECIFIED: _ClassVar[PixelFormat]
    PIXEL_FORMAT_RGB24: _ClassVar[PixelFormat]
    PIXEL_FORMAT_NV12: _ClassVar[PixelFormat]
    PIXEL_FORMAT_UYVY: _ClassVar[PixelFormat]
    PIXEL_FORMAT_BGR24: _ClassVar[PixelFormat]
    PIXEL_FORMAT_RGBA: _ClassVar[PixelFormat]

class ColorMatrix(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOR_MATRIX_UNSPECIFIED: _ClassVar[ColorMatrix]
    COLOR_MATRIX_BT601: _ClassVar[ColorMatrix]
    COLOR_MATRIX_BT709: _ClassVar[ColorMatrix]
    COLOR_MATRIX_BT2020: _ClassVar[ColorMatrix]

class ColorRange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOR_RANGE_UNSPECIFIED: _ClassVar[ColorRange]
    COLOR_RANGE_LIMITED: _ClassVar[ColorRange]
    COLOR_RANGE_FULL: _ClassVar[ColorRange]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_STALE: _ClassVar[DropReason]
    DROP_REASON_DEADLINE: _ClassVar[DropReason]
    DROP_REASON_OVERLOAD: _ClassVar[DropReason]

class Quality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUALITY_UNSPECIFIED: _ClassVar[Quality]
    QUALITY_BLACK: _ClassVar[Quality]
    QUALITY_TOO_DARK: _ClassVar[Quality]
    QUALITY_SATURATED: _ClassVar[Quality]
    QUALITY_BLURRED: _ClassVar[Quality]
    QUALITY_FROZEN: _ClassVar[Quality]
OUTPUT_UNSPECIFIED: Output
OUTPUT_MASK: Output
OUTPUT_PROBABILITY: Output
OUTPUT_OVERLAY: Output
OUTPUT_POLYPS: Output
POLICY_UNSPECIFIED: Policy
POLICY_LATEST: Policy
POLICY_EVERY: Policy
MASK_FORMAT_UNSPECIFIED: MaskFormat
MASK_FORMAT_PNG: MaskFormat
MASK_FORMAT_RLE: MaskFormat
MASK_FORMAT_BITS: MaskFormat
PIXEL_FORMAT_UNSPECIFIED: PixelFormat
PIXEL_FORMAT_RGB24: PixelFormat
PIXEL_FORMAT_NV12: PixelFormat
PIXEL_FORMAT_UYVY: PixelFormat
PIXEL_FORMAT_BGR24: PixelFormat
PIXEL_FORMAT_RGBA: PixelFormat
COLOR_MATRIX_UNSPECIFIED: ColorMatrix
COLOR_MATRIX_BT601: ColorMatrix
COLOR_MATRIX_BT709: ColorMatrix
COLOR_MATRIX_BT2020: ColorMatrix
COLOR_RANGE_UNSPECIFIED: ColorRange
COLOR_RANGE_LIMITED: ColorRange
COLOR_RANGE_FULL: ColorRange
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_STALE: DropReason
DROP_REASON_DEADLINE: DropReason
DROP_REASON_OVERLOAD: DropReason
QUALITY_UNSPECIFIED: Quality
QUALITY_BLACK: Quality
QUALITY_TOO_DARK: Quality
QUALITY_SATURATED: Quality
QUALITY_BLURRED: Quality
QUALITY_FROZEN: Quality

class SegmentRequest(_message.Message):
    __slots__ = ("image", "threshold", "output", "depth", "roi", "request_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    ROI_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    threshold: float
    output: Output
    depth: int
    roi: str
    request_id: str
    def __init__(self, image: _Optional[bytes] = ..., threshold: _Optional[float] = ..., output: _Optional[_Union[Output, str]] = ..., depth: _Optional[int] = ..., roi: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("request_id", "width", "height", "png", "polyps", "run_lengths", "threshold", "model", "timings_ms", "batch_size", "bits", "presence")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    POLYPS_FIELD_NUMBER: _ClassVar[int]
    RUN_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    width: int
    height: int
    png: bytes
    polyps: _containers.RepeatedCompositeFieldContainer[Polyp]
    run_lengths: _containers.RepeatedScalarFieldContainer[int]
    threshold: float
    model: Model
    timings_ms: StageTimes
    batch_size: int
    bits: bytes
    presence: Presence
    def __init__(self, request_id: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., png: _Optional[bytes] = ..., polyps: _Optional[_Iterable[_Union[Polyp, _Mapping]]] = ..., run_lengths: _Optional[_Iterable[int]] = ..., threshold: _Optional[float] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., timings_ms: _Optional[_Union[StageTimes, _Mapping]] = ..., batch_size: _Optional[int] = ..., bits: _Optional[bytes] = ..., presence: _Optional[_Union[Presence, _Mapping]] = ...) -> None: ...

class Presence(_message.Message):
    __slots__ = ("score", "threshold")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    score: float
    threshold: float
    def __init__(self, score: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("policy", "deadline_ms", "output", "threshold", "depth", "roi", "mask_format", "smoothing_ms", "hysteresis", "reuse")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    ROI_FIELD_NUMBER: _ClassVar[int]
    MASK_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_MS_FIELD_NUMBER: _ClassVar[int]
    HYSTERESIS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    deadline_ms: float
    output: Output
    threshold: float
    depth: int
    roi: str
    mask_format: MaskFormat
    smoothing_ms: float
    hysteresis: bool
    reuse: bool
    def __init__(self, policy: _Optional[_Union[Policy, str]] = ..., deadline_ms: _Optional[float] = ..., output: _Optional[_Union[Output, str]] = ..., threshold: _Optional[float] = ..., depth: _Optional[int] = ..., roi: _Optional[str] = ..., mask_format: _Optional[_Union[MaskFormat, str]] = ..., smoothing_ms: _Optional[float] = ..., hysteresis: _Optional[bool] = ..., reuse: _Optional[bool] = ...) -> None: ...

class RawImage(_message.Message):
    __slots__ = ("format", "width", "height", "stride", "data", "matrix", "range")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    format: PixelFormat
    width: int
    height: int
    stride: int
    data: bytes
    matrix: ColorMatrix
    range: ColorRange
    def __init__(self, format: _Optional[_Union[PixelFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., stride: _Optional[int] = ..., data: _Optional[bytes] = ..., matrix: _Optional[_Union[ColorMatrix, str]] = ..., range: _Optional[_Union[ColorRange, str]] = ...) -> None: ...

class StreamFrame(_message.Message):
    __slots__ = ("frame_id", "capture_time_us", "image", "raw", "presentation_time_us")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    PRESENTATION_TIME_US_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    capture_time_us: int
    image: bytes
    raw: RawImage
    presentation_time_us: int
    def __init__(self, frame_id: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., image: _Optional[bytes] = ..., raw: _Optional[_Union[RawImage, _Mapping]] = ..., presentation_time_us: _Optional[int] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("config", "frame")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    config: StreamConfig
    frame: StreamFrame
    def __init__(self, config: _Optional[_Union[StreamConfig, _Mapping]] = ..., frame: _Optional[_Union[StreamFrame, _Mapping]] = ...) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: DropReason
    def __init__(self, reason: _Optional[_Union[DropReason, str]] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("cause", "detail")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    cause: str
    detail: str
    def __init__(self, cause: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("frame_id", "age_ms", "window_ms", "mask", "dropped", "error", "quality", "added_delay_ms", "reused")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    ADDED_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    age_ms: float
    window_ms: float
    mask: SegmentResponse
    dropped: Dropped
    error: FrameError
    quality: _containers.RepeatedScalarFieldContainer[Quality]
    added_delay_ms: float
    reused: bool
    def __init__(self, frame_id: _Optional[int] = ..., age_ms: _Optional[float] = ..., window_ms: _Optional[float] = ..., mask: _Optional[_Union[SegmentResponse, _Mapping]] = ..., dropped: _Optional[_Union[Dropped, _Mapping]] = ..., error: _Optional[_Union[FrameError, _Mapping]] = ..., quality: _Optional[_Iterable[_Union[Quality, str]]] = ..., added_delay_ms: _Optional[float] = ..., reused: _Optional[bool] = ...) -> None: ...

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
