"""Requests and responses over HTTP: JSON, or the binary extension, in which tensors follow the JSON as bytes.

With the extension, the header ``Inference-Header-Content-Length`` gives the length of the JSON, and each tensor's
parameter ``binary_data_size`` the length of its bytes. A length of 0 marks Triton's raw binary request: the body is
one encoded picture. Encoded pictures inside JSON are base64.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from pranet_client.pictures import Picture
from service.errors import InvalidRequest, TooManyBytes
from service.frames.frame import Output
from service.oip import model, parameters, tensors
from service.oip.tensors import Array, Tensor
from service.validation import describe_errors, shown, typed

HEADER_LENGTH = "inference-header-content-length"
HEADER_DIGITS = re.compile(r"[0-9]{1,18}")
MAX_JSON_BYTES = 8 * 2**20  # JSON takes up to forty times its length in memory; larger tensors go in binary
MAX_JSON_ELEMENTS = 4 * 2**20
# The parser holds the interpreter, and with it every answer. What it makes is counted before: so much takes 0.2 s, but
# 8 MiB of empty lists took 2 s. A tensor of 640x480 pixels has room, flat or as nested lists; objects are always few.
MAX_JSON_PARTS = {b",": 2**20, b"[": 2**19, b"{": 2**12}

# Limit on all lists and objects except data: each fault in them costs a thousand bytes or more of error message.
MAX_MEMBERS = 32


def _scalar(given: Any) -> Any:
    if isinstance(given, list | dict):
        raise ValueError(f"is {shown(given)}, but it should be a single value")
    return given


Value = Annotated[StrictBool | StrictInt | StrictFloat | StrictStr, BeforeValidator(_scalar)]
T = TypeVar("T")
Few = Annotated[list[T], Field(max_length=MAX_MEMBERS)]
Dimension = Annotated[StrictInt, Field(ge=0, le=parameters.MOST)]


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the members that are null."""
    return {name: value for name, value in members.items() if value is not None}


class _Body(BaseModel):
    """A JSON object; as in other servers of the protocol, unknown members are passed over and null means none."""

    @model_validator(mode="before")
    @classmethod
    def _has_few_members(cls, given: Any) -> Any:
        """Refuse many members before pydantic describes a fault for each, and leave out those that are null."""
        if isinstance(given, dict):
            own = given.get("parameters")
            for what, each in (("members", given), ("parameters", own)):
                if isinstance(each, dict) and len(each) > MAX_MEMBERS:
                    raise ValueError(f"has {len(each)} {what}; send at most {MAX_MEMBERS}")
            if isinstance(own, dict):
                given = given | {"parameters": _given(own)}
            return _given(given)
        return given


class InputBody(_Body):
    """An input tensor."""

    name: str
    datatype: str
    shape: Few[Dimension]
    parameters: dict[str, Value] = {}
    data: Any = None


class OutputBody(_Body):
    """A requested output."""

    name: str
    parameters: dict[str, Value] = {}


class IndexBody(_Body):
    """The JSON of a request for the index of models."""

    ready: StrictBool = False


class InferBody(_Body):
    """The JSON of an inference request."""

    id: str = ""
    parameters: dict[str, Value] = {}
    inputs: Few[InputBody]
    outputs: Few[OutputBody] = []

    @cached_property
    def binary_outputs(self) -> frozenset[str]:
        """Return the names of the outputs to send in binary.

        Raises:
            InvalidParameter: ``binary_data_output`` or ``binary_data`` is neither true nor false.

        """
        return parameters.binary_outputs(self.parameters, {each.name: each.parameters for each in self.outputs})


def parse(raw: bytes, header_length: str | None, max_pictures: int) -> tuple[InferBody, list[Picture]]:
    """Parse a request; return its JSON and its pictures.

    Args:
        raw: the body.
        header_length: length of the JSON in bytes, as the header gives it; None: the whole body is JSON; 0: the body
            is the only picture, which no length precedes, and every output is wanted in binary.
        max_pictures: limit for one request.

    Raises:
        InvalidRequest: the JSON or a tensor is invalid.
        TooManyBytes: the JSON is longer than ``MAX_JSON_BYTES``, or has more parts than ``MAX_JSON_PARTS``.

    """
    if header_length is not None and not (HEADER_DIGITS.fullmatch(header_length) and int(header_length) <= len(raw)):
        raise InvalidRequest(f"{HEADER_LENGTH} is {header_length[:32]!r}; send the length of the JSON in bytes, once")
    json_size = len(raw) if header_length is None else int(header_length)
    if header_length is not None and json_size == 0:
        return InferBody(inputs=[], parameters={parameters.BINARY_OUTPUTS: True}), [raw]
    if json_size > MAX_JSON_BYTES:
        raise TooManyBytes(f"the JSON has more than {MAX_JSON_BYTES} bytes; send the tensors in binary")
    for mark, most in MAX_JSON_PARTS.items():
        if raw.count(mark, 0, json_size) > most:
            raise TooManyBytes(f"the JSON has more than {most} times {mark.decode()!r}; send the tensors in binary")
    try:
        body = InferBody.model_validate_json(raw[:json_size])
    except ValidationError as error:
        raise InvalidRequest(f"the JSON of the request: {describe_errors(error.errors(), InferBody)}") from error
    for output in body.outputs:
        parameters.refuse_unknown(output.parameters, parameters.OF_OUTPUT, "output", output.name)
    _ = body.binary_outputs  # raises its errors before any work is done
    inputs = _inputs(body.inputs, memoryview(raw)[json_size:])
    return body, tensors.pictures(inputs, max_pictures)


def _inputs(bodies: Sequence[InputBody], binary: memoryview) -> list[Tensor]:
    inputs = []
    for body in bodies:
        parameters.refuse_unknown(body.parameters, parameters.OF_INPUT, "input", body.name)
        size = body.parameters.get("binary_data_size")
        if (size is None) == (body.data is None):
            raise InvalidRequest(
                f"input {shown(body.name)} needs either data or binary_data_size; send exactly one of them"
            )
        if size is None:
            data = tensors.from_json(body.datatype, body.shape, body.data)
        else:
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary):
                told = f"is {typed(size)}, and {len(binary)} bytes follow"
                raise InvalidRequest(f"binary_data_size of {shown(body.name)} {told}; send its number of these")
            data = tensors.from_raw(body.datatype, bytes(binary[:size]))
            binary = binary[size:]
        inputs.append(Tensor(body.name, body.datatype, tuple(body.shape), data))
    if len(binary):
        raise InvalidRequest(f"{len(binary)} bytes belong to no tensor; give their size in a binary_data_size")
    return inputs


def check_binary(body: InferBody, pixels: int) -> None:
    """Check that a request of more than ``MAX_JSON_ELEMENTS`` pixels wants all its outputs in binary.

    Raises:
        InvalidRequest: it wants one in JSON, with an element for each pixel.

    """
    wanted = [output.name for output in body.outputs] or model.OUTPUTS
    in_json = [name for name in model.OUTPUTS if name in wanted and name not in body.binary_outputs]
    if in_json:
        raise InvalidRequest(
            f"output '{in_json[0]}' would have {pixels} elements, and JSON has room for {MAX_JSON_ELEMENTS}; ask for "
            "it with binary_data, or send smaller or fewer pictures"
        )


def write(body: InferBody, outputs: Mapping[Output, Array]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the JSON of the outputs, and the binary data that follows it, as the request asks for them."""
    binary: list[bytes] = []
    return [_output(name, array, name in body.binary_outputs, binary) for name, array in outputs.items()], binary


def _output(name: Output, array: Array, in_binary: bool, binary: list[bytes]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": model.OUTPUTS[name], "shape": list(array.shape)}
    if in_binary:
        binary.append(tensors.to_raw(array))
        return described | {"parameters": {"binary_data_size": len(binary[-1])}}
    return described | {"data": array.ravel().tolist()}
