"""The options of a request, validated in one place for all transports; field names are those of REST."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from service.batching.queue import Priority
from service.errors import InvalidParameter
from service.frames.frame import MaskFormat, Options, Output
from service.frames.regions import ROI_FORMS, ROI_PATTERN
from service.streams.stream import MAX_SMOOTHING_MS, StreamOptions
from service.streams.window import Policy
from service.validation import describe_errors, shown

M = TypeVar("M", bound=BaseModel)


def _plain(given: Any) -> Any:
    """Refuse what pydantic takes for a number as well: true for 1, and 0.2_5 for 0.25."""
    if isinstance(given, bool) or (isinstance(given, str) and "_" in given):
        raise ValueError(f"is {shown(given)}, but it should be a number such as 0.25")
    return given


PLAIN = BeforeValidator(_plain)
Number = Annotated[float, Field(allow_inf_nan=False), PLAIN]
# The range stands before PLAIN: after it, pydantic writes the words ge and le into the schema, which JSON Schema lacks.
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), PLAIN]
Depth = Annotated[Literal[8, 16], BeforeValidator(lambda given: int(given) if given in ("8", "16") else given)]


class FrameOptions(BaseModel):
    """The options of one frame."""

    model_config = ConfigDict(extra="forbid")

    threshold: Probability | None = Field(None, description="Probability above which a pixel is polyp.")
    output: Literal["mask", "probability", "overlay", "json", "maps"] | None = Field(
        None,
        description="mask: 0/255 PNG. probability: grey PNG. overlay: picture with outlines. json: polygons and boxes. "
        "maps: the side outputs S6 to S3 next to each other, grey PNG.",
    )
    depth: Depth = Field(8, description="Bits of a probability.")
    roi: str = Field("full", pattern=ROI_PATTERN, description=f"{ROI_FORMS}.")

    def options(
        self,
        default_threshold: float,
        priority: Priority = Priority.SINGLE,
        default_output: Output = Output.MASK,
        **more: Any,
    ) -> Options:
        """Convert to the ``Options`` of a frame; ``more`` holds fields that only some transports have."""
        threshold = default_threshold if self.threshold is None else self.threshold
        output = Output(self.output or default_output)
        return Options(threshold, output, self.depth, self.roi, priority=priority, **more)


class StreamConfig(FrameOptions):
    """The configuration of a stream, its first message."""

    policy: Policy = Policy.LATEST
    deadline_ms: Annotated[float, Field(gt=0, allow_inf_nan=False), PLAIN] | None = None
    mask_format: MaskFormat = MaskFormat.PNG
    smoothing_ms: Number = Field(0, ge=0, le=MAX_SMOOTHING_MS)
    hysteresis: StrictBool = False
    reuse: StrictBool = False

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_the_default(cls, given: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default if given is None else given

    @field_validator("output")
    @classmethod
    def _is_made_of_video(cls, output: str | None) -> str | None:
        if output == "maps":  # a separate network makes them, one picture at a time
            raise ValueError("maps is not available for video; send single frames to POST /segment")
        return output

    @field_validator("mask_format")
    @classmethod
    def _is_of_a_mask(cls, mask_format: MaskFormat, info: ValidationInfo) -> MaskFormat:
        output = info.data.get("output") or Output.MASK
        if mask_format is not MaskFormat.PNG and output != Output.MASK:
            raise ValueError(f"is {shown(mask_format)}, but output is {shown(output)}; leave one of them out")
        return mask_format

    def stream_options(self, default_threshold: float) -> StreamOptions:
        """Convert to ``StreamOptions``; policy ``latest`` gets the priority of live video."""
        priority = Priority.LIVE if self.policy is Policy.LATEST else Priority.SINGLE
        frame = self.options(default_threshold, priority, mask_format=self.mask_format)
        return StreamOptions(self.policy, self.deadline_ms, frame, self.smoothing_ms, self.hysteresis, self.reuse)


def read(model: type[M], given: Mapping[str, Any], place: str = "") -> M:
    """Validate the fields of a request against ``model``.

    Raises:
        InvalidParameter: a field is unknown or out of range; the message begins with ``place``.

    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidParameter(f"{place}{describe_errors(error.errors(), model)}") from error


def refuse_repeated(names: Iterable[str]) -> None:
    """Check that each option is given once.

    Raises:
        InvalidParameter: one is given several times.

    """
    for name, times in Counter(names).items():
        if times > 1:
            raise InvalidParameter(f"{name} is given {times} times; give it once")


def with_fields(query: M, fields: Sequence[tuple[str, str]]) -> M:
    """Return the options of a query together with those in the fields (name, text) of a form.

    Raises:
        InvalidParameter: a field is unknown, out of range or given twice, or differs from the same option of the query.

    """
    refuse_repeated(name for name, _ in fields)
    form = read(type(query), dict(fields), "the form: ")
    for name in form.model_fields_set & query.model_fields_set:
        if getattr(form, name) != getattr(query, name):
            raise InvalidParameter(f"{name} differs between the form and the query; give it once")
    return query.model_copy(update={name: getattr(form, name) for name in form.model_fields_set})
