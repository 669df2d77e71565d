"""Converts input tensors to pictures, and output arrays to bytes."""

import base64
import contextlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pranet_client.pictures import Picture, PixelFormat, RawPicture
from service.errors import InvalidRequest
from service.oip.model import INPUT
from service.validation import TOLD, shown

LENGTH = struct.Struct("<I")  # before each element of BYTES
CHANNELS = 3

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input tensor as received; its shape is not checked yet."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | list[bytes]  # UINT8: row by row; BYTES: its elements


def pictures(inputs: Sequence[Tensor], max_pictures: int) -> list[Picture]:
    """Return the N pictures of the input ``image``: encoded, BYTES [N] or [N, 1], or raw RGB, UINT8 [N, H, W, 3].

    Raises:
        InvalidRequest: there is another input, another shape or type, or N is 0 or more than ``max_pictures``.

    """
    if [tensor.name for tensor in inputs] != [INPUT]:
        given = ", ".join(shown(tensor.name) for tensor in inputs[:TOLD]) or "none"
        raise InvalidRequest(f"the inputs are {given}; send exactly one, named {INPUT!r}")
    image = inputs[0]
    count = image.shape[0] if image.shape else 0
    if count > max_pictures:
        raise InvalidRequest(
            f"the request has {count} pictures; send at most {max_pictures} (max_batch_size of the model)"
        )
    found = _raw_pictures(image) if image.datatype == "UINT8" else _encoded_pictures(image)
    if not found:
        raise InvalidRequest(f"{INPUT!r} of shape {list(image.shape)} holds no picture; send at least one")
    return found


def from_raw(datatype: str, raw: bytes) -> bytes | list[bytes]:
    """Return a tensor's data from its binary form; a BYTES tensor has the length of each element before it.

    Raises:
        InvalidRequest: the lengths in a BYTES tensor do not match its data.

    """
    return _split(raw) if datatype == "BYTES" else raw


def from_json(datatype: str, shape: Sequence[int], data: Any) -> bytes | list[bytes]:
    """Return a tensor's data from a flat or nested JSON array of numbers from 0 to 255, or of base64 strings.

    Raises:
        InvalidRequest: the datatype is another one, the array irregular or nested otherwise than ``shape``, or an
            element of another type or value.

    """
    if datatype == "BYTES":
        return [_from_base64(element, number) for number, element in enumerate(_flat(data), 1)]
    if datatype != "UINT8":
        raise _wrong(datatype)
    try:
        numbers = np.asarray(data)
    except ValueError as error:
        raise InvalidRequest(f"the data of {INPUT!r} have rows of different lengths; send equal ones") from error
    if numbers.ndim > 1 and numbers.shape != tuple(shape):  # its elements would be at other places
        raise InvalidRequest(
            f"{INPUT!r} has shape {list(shape)}, but its data are nested as {list(numbers.shape)}; "
            "correct the shape or the data, or send them flat"
        )
    return from_numbers(numbers)


def from_numbers(numbers: Array) -> bytes:
    """Convert whole numbers to UINT8 data.

    Raises:
        InvalidRequest: a number is not whole, or not from 0 to 255.

    """
    if numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > 255):
        raise InvalidRequest(
            f"the data of {INPUT!r} have other values than whole numbers from 0 to 255; send only those"
        )
    return numbers.astype(np.uint8).tobytes()


def to_raw(array: Array) -> bytes:
    """Return the binary form of an output: its elements in C order, little-endian."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _raw_pictures(image: Tensor) -> list[Picture]:
    if len(image.shape) != 4 or image.shape[3] != CHANNELS or min(image.shape) < 1:
        raise InvalidRequest(f"UINT8 {INPUT!r} has shape {list(image.shape)}; send [N, H, W, {CHANNELS}]")
    size, given = math.prod(image.shape), len(image.data)
    if size != given:
        raise InvalidRequest(
            f"{INPUT!r} has shape {list(image.shape)}, {size} elements, but its data have {given}; "
            "correct the shape or the data"
        )
    height, width = image.shape[1:3]
    stride = width * CHANNELS
    data = b"".join(image.data) if isinstance(image.data, list) else image.data
    return [
        RawPicture(PixelFormat.RGB24, width, height, stride, data[start : start + stride * height])
        for start in range(0, size, stride * height)
    ]


def _encoded_pictures(image: Tensor) -> list[Picture]:
    if image.datatype != "BYTES" or not isinstance(image.data, list):
        raise _wrong(image.datatype)
    if len(image.shape) not in (1, 2) or image.shape[1:] not in ((), (1,)):
        raise InvalidRequest(f"BYTES {INPUT!r} has shape {list(image.shape)}; send [N] or [N, 1]")
    if len(image.data) != image.shape[0]:
        raise InvalidRequest(
            f"{INPUT!r} has shape {list(image.shape)}, but its data have {len(image.data)} elements; "
            "correct the shape or the data"
        )
    return list(image.data)


def _wrong(datatype: str) -> InvalidRequest:
    return InvalidRequest(f"{INPUT!r} is {datatype[:32]}; send BYTES (encoded pictures) or UINT8 [N, H, W, 3]")


def _split(raw: bytes) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + LENGTH.size
        if start > len(raw) or (end := start + LENGTH.unpack_from(raw, position)[0]) > len(raw):
            raise InvalidRequest(
                "the data of a BYTES tensor end inside an element; put the length in 4 bytes before each element"
            )
        elements.append(raw[start:end])
        position = end
    return elements


def _flat(data: Any) -> list[Any]:
    """Flatten an array of shape [N, 1] to [N]."""
    if not isinstance(data, list):
        raise InvalidRequest(f"the data of {INPUT!r} are not an array; send a JSON array")
    return [element[0] if isinstance(element, list) and len(element) == 1 else element for element in data]


def _from_base64(element: Any, number: int) -> bytes:
    """Decode the element of this number, from 1; many encoders break lines after 76 characters."""
    if isinstance(element, str):
        with contextlib.suppress(ValueError):
            return base64.b64decode(element.replace("\n", "").replace("\r", ""), validate=True)
    raise InvalidRequest(f"element {number} of {INPUT!r} is not base64; encode it for JSON, or send it in binary")
