"""Turns what callers hold (files, bytes, arrays, Pillow images) into what the service reads.

NumPy and Pillow are optional: an array or image can only exist where its library is loaded already.
"""

import importlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pranet_client.errors import InvalidInput
from pranet_client.pictures import Picture, PixelFormat, RawPicture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image as PillowImage

Image: TypeAlias = "bytes | str | os.PathLike[str] | npt.NDArray[np.uint8] | PillowImage.Image"
EXPECTED = "give a path, the bytes of a picture file, a uint8 array (H, W, 3) in RGB, or a Pillow image"
NOT_8_BIT = ("F", "I")  # modes of Pillow, also I;16 and its kin


def to_file(image: Image) -> bytes:
    """Return a picture as the bytes of a file: a file as it is, pixels as a lossless PNG.

    Args:
        image: a path, the bytes of a JPEG, PNG, WebP, BMP or TIFF file, an array (H, W, 3) of uint8 in RGB, or a
            Pillow image of 8 bits a channel, which is turned by its EXIF orientation.

    Raises:
        InvalidInput: it is none of these, or the file cannot be read.

    """
    picture = to_picture(image)
    if isinstance(picture, bytes):
        return picture
    pillow = require("PIL.Image")
    png = io.BytesIO()
    pillow.frombytes("RGB", (picture.width, picture.height), picture.data).save(png, "PNG", compress_level=1)
    return png.getvalue()


def to_picture(image: "Image | RawPicture") -> Picture:
    """Return a picture for a stream: the bytes of a file, or raw pixels, which need no encoding.

    Raises:
        InvalidInput: see ``to_file``.

    """
    numpy, pillow = sys.modules.get("numpy"), sys.modules.get("PIL.Image")
    if isinstance(image, RawPicture):
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        if not image:
            raise InvalidInput(f"the picture is empty; {EXPECTED}")
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if numpy and isinstance(image, numpy.ndarray):
        return _of_array(image)
    if pillow and isinstance(image, pillow.Image):
        return _of_pillow(image)
    raise InvalidInput(f"a {type(image).__module__}.{type(image).__qualname__} is no picture here; {EXPECTED}")


def require(library: str) -> Any:
    """Return an optional library, ``numpy`` or ``PIL.Image``.

    Raises:
        InvalidInput: it is not installed.

    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise InvalidInput(
            f"this needs {library}; install the extra images of this package, or: pip install numpy pillow"
        ) from None


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); {EXPECTED}") from error
    if not content:
        raise InvalidInput(f"{path} is empty; give the file of a picture")
    return content


def _of_array(array: "npt.NDArray[Any]") -> RawPicture:
    shape, kind = array.shape, array.dtype
    if advice := _advice(shape, str(kind)):
        raise InvalidInput(
            f"an array of {kind} with shape {shape} is not a picture of uint8 (H, W, 3) in RGB; {advice}"
        )
    return RawPicture(PixelFormat.RGB24, shape[1], shape[0], 3 * shape[1], array.tobytes())


def _advice(shape: tuple[int, ...], kind: str) -> str:
    """Return what to do with an array that is no picture, empty if it is one."""
    if len(shape) == 2:
        return "give a grey picture as numpy.stack([array] * 3, axis=-1)"
    if len(shape) == 4:
        return "give its pictures one by one, to stream() or batch()"
    if len(shape) != 3 or 0 in shape:
        return EXPECTED
    if shape[2] == 4:
        return "leave out the alpha channel: array[:, :, :3]"
    if shape[2] != 3:
        return "put the channels last: array.transpose(1, 2, 0)" if shape[0] == 3 else EXPECTED
    if kind.startswith("float"):
        return "if it holds 0 to 1, convert it: (array * 255).round().astype(numpy.uint8)"
    return "" if kind == "uint8" else "scale it to 0 to 255, then convert it: array.astype(numpy.uint8)"


def _of_pillow(image: "PillowImage.Image") -> RawPicture:
    from PIL import ImageOps

    if image.mode.startswith(NOT_8_BIT):
        raise InvalidInput(
            f"a Pillow image of mode {image.mode} does not have 8 bits a channel; scale it to 0 to 255, and convert it "
            "to L or RGB"
        )
    try:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    except OSError as error:  # Pillow decodes at first use
        raise InvalidInput(f"the Pillow image cannot be decoded ({error}); check its file") from error
    if 0 in upright.size:
        raise InvalidInput(f"the Pillow image has no pixels; {EXPECTED}")
    return RawPicture(PixelFormat.RGB24, upright.width, upright.height, 3 * upright.width, upright.tobytes())
