"""Converts between gRPC messages and the service's types."""

from typing import Any

from model.engines.predictor import ModelRef
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import ColorMatrix, ColorRange, Picture, PixelFormat, RawPicture
from service.errors import InvalidParameter, InvalidRequest, ServiceError
from service.frames import raw, regions
from service.frames.frame import MaskFormat, Options, Output, Segmentation
from service.frames.quality import Quality
from service.frames.shapes import Polyp
from service.options import FrameOptions, StreamConfig, read
from service.streams.frame import Drop, StreamFrame
from service.streams.stream import StreamOptions
from service.streams.window import Policy

OUTPUTS = {
    pb.OUTPUT_UNSPECIFIED: Output.MASK,
    pb.OUTPUT_MASK: Output.MASK,
    pb.OUTPUT_PROBABILITY: Output.PROBABILITY,
    pb.OUTPUT_OVERLAY: Output.OVERLAY,
    pb.OUTPUT_POLYPS: Output.JSON,
}
POLICIES = {
    pb.POLICY_UNSPECIFIED: Policy.LATEST,
    pb.POLICY_LATEST: Policy.LATEST,
    pb.POLICY_EVERY: Policy.EVERY,
}
MASK_FORMATS = {
    pb.MASK_FORMAT_UNSPECIFIED: MaskFormat.PNG,
    pb.MASK_FORMAT_PNG: MaskFormat.PNG,
    pb.MASK_FORMAT_RLE: MaskFormat.RLE,
    pb.MASK_FORMAT_BITS: MaskFormat.BITS,
}
PIXEL_FORMATS = {
    pb.PIXEL_FORMAT_RGB24: PixelFormat.RGB24,
    pb.PIXEL_FORMAT_BGR24: PixelFormat.BGR24,
    pb.PIXEL_FORMAT_RGBA: PixelFormat.RGBA,
    pb.PIXEL_FORMAT_NV12: PixelFormat.NV12,
    pb.PIXEL_FORMAT_UYVY: PixelFormat.UYVY,
}
MATRICES = {
    pb.COLOR_MATRIX_UNSPECIFIED: None,
    pb.COLOR_MATRIX_BT601: ColorMatrix.BT601,
    pb.COLOR_MATRIX_BT709: ColorMatrix.BT709,
    pb.COLOR_MATRIX_BT2020: ColorMatrix.BT2020,
}
RANGES = {
    pb.COLOR_RANGE_UNSPECIFIED: ColorRange.LIMITED,
    pb.COLOR_RANGE_LIMITED: ColorRange.LIMITED,
    pb.COLOR_RANGE_FULL: ColorRange.FULL,
}
DROP_REASONS = {
    Drop.STALE: pb.DROP_REASON_STALE,
    Drop.DEADLINE: pb.DROP_REASON_DEADLINE,
    Drop.OVERLOAD: pb.DROP_REASON_OVERLOAD,
}
QUALITIES = {
    Quality.BLACK: pb.QUALITY_BLACK,
    Quality.TOO_DARK: pb.QUALITY_TOO_DARK,
    Quality.SATURATED: pb.QUALITY_SATURATED,
    Quality.BLURRED: pb.QUALITY_BLURRED,
    Quality.FROZEN: pb.QUALITY_FROZEN,
}


def options(request: pb.SegmentRequest, default_threshold: float) -> Options:
    """Return the options of a ``Segment`` request.

    Raises:
        InvalidParameter: a value is unknown or out of range.

    """
    return read(FrameOptions, _frame_fields(request)).options(default_threshold)


def stream_options(request: pb.StreamRequest, default_threshold: float) -> StreamOptions:
    """Return the options in the configuration, the first message of a stream.

    Raises:
        InvalidRequest: the message is not a configuration.
        InvalidParameter: a value is unknown or out of range.

    """
    if request.WhichOneof("kind") != "config":
        raise InvalidRequest("the first message of a stream is its configuration; send frames after it")
    config = request.config
    if config.policy not in POLICIES or config.mask_format not in MASK_FORMATS:
        raise InvalidParameter("the policy or mask_format is unknown; send a value of segmentation.proto")
    fields = _frame_fields(config) | {
        "policy": POLICIES[config.policy],
        "mask_format": MASK_FORMATS[config.mask_format],
        "deadline_ms": config.deadline_ms or None,  # 0: none
        "smoothing_ms": config.smoothing_ms,
        "hysteresis": config.hysteresis,
        "reuse": config.reuse,
    }
    return read(StreamConfig, fields).stream_options(default_threshold)


def _frame_fields(request: pb.SegmentRequest | pb.StreamConfig) -> dict[str, Any]:
    if request.output not in OUTPUTS:
        raise InvalidParameter(f"output {request.output} is unknown; send a value of segmentation.proto")
    return {
        "threshold": request.threshold if request.HasField("threshold") else None,
        "output": OUTPUTS[request.output],
        "depth": request.depth or 8,
        "roi": request.roi or regions.FULL,
    }


def frame(request: pb.StreamRequest) -> StreamFrame:
    """Return the frame in a message of a stream; its picture is checked later, when it is decoded.

    Raises:
        InvalidRequest: the message is not a frame.

    """
    if request.WhichOneof("kind") != "frame":
        raise InvalidRequest("after its configuration a stream takes frames only; open another stream to change it")
    given = request.frame
    capture = given.capture_time_us if given.HasField("capture_time_us") else None
    presentation = given.presentation_time_us if given.HasField("presentation_time_us") else None
    return StreamFrame(
        frame_id=given.frame_id,
        source=_picture(given),
        capture_time_us=capture,
        presentation_time_us=presentation,
    )


def _picture(given: pb.StreamFrame) -> Picture:
    if given.WhichOneof("picture") != "raw":
        return given.image
    sent = given.raw
    form = PIXEL_FORMATS.get(sent.format)
    if sent.matrix not in MATRICES or sent.range not in RANGES:
        form = None  # refused when its turn comes, as a format that is unknown
    stride = sent.stride or (raw.row_bytes(form, sent.width) if form else 0)
    matrix, levels = MATRICES.get(sent.matrix), RANGES.get(sent.range, ColorRange.LIMITED)
    return RawPicture(form, sent.width, sent.height, stride, sent.data, matrix, levels)


def stream_response(frame: StreamFrame) -> pb.StreamResponse:
    """Return the message that answers a frame: its mask, why it was dropped, or its error."""
    message = pb.StreamResponse(
        frame_id=frame.frame_id,
        age_ms=frame.age_seconds * 1e3,
        window_ms=frame.window_seconds * 1e3,
        quality=[QUALITIES[flag] for flag in frame.status.quality],
        added_delay_ms=frame.status.added_delay * 1e3,
    )
    match frame.outcome:
        case Segmentation() as done:
            message.mask.CopyFrom(response(done))
            message.reused = frame.reused
        case Drop() as reason:
            message.dropped.reason = DROP_REASONS[reason]
        case ServiceError() as error:
            message.error.cause, message.error.detail = error.slug, error.detail
    return message


def response(segmentation: Segmentation, request_id: str = "") -> pb.SegmentResponse:
    """Return the message of a segmented frame; frames of a stream have no ``request_id``."""
    return pb.SegmentResponse(
        request_id=request_id,
        width=segmentation.width,
        height=segmentation.height,
        png=segmentation.png,
        polyps=map(_polyp, segmentation.polyps),
        run_lengths=segmentation.run_lengths,
        threshold=segmentation.options.threshold,
        model=model(segmentation.model),
        batch_size=segmentation.batch_size,
        bits=segmentation.bits,
        presence=_presence(segmentation),
        timings_ms=pb.StageTimes(**segmentation.times.milliseconds()),
    )


def _presence(segmentation: Segmentation) -> pb.Presence | None:
    score, calibration = segmentation.presence, segmentation.model.presence
    return None if score is None or calibration is None else pb.Presence(score=score, threshold=calibration.threshold)


def _polyp(polyp: Polyp) -> pb.Polyp:
    x, y, width, height = polyp.bounding_box
    return pb.Polyp(
        polygon=[pb.Point(x=px, y=py) for px, py in polyp.polygon],
        bounding_box=pb.Box(x=x, y=y, width=width, height=height),
        area_fraction=polyp.area_fraction,
        centroid=pb.Point(x=polyp.centroid[0], y=polyp.centroid[1]),
        mean_probability=polyp.mean_probability,
    )


def model(ref: ModelRef) -> pb.Model:
    """Return the message that identifies the weights, with engine, device and precision."""
    return pb.Model(
        model_id=ref.model_id,
        weights_sha256=ref.weights_sha256,
        engine=ref.engine,
        device=ref.device,
        precision=ref.precision,
    )
