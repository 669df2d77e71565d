"""Converts decoded DICOM samples to the RGB that a viewer would show: colour spaces, palettes, windows and tables."""

from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.pixels import apply_lut, apply_voi_window
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut

from model.transforms import Pixels
from service.errors import UnsupportedImage

Samples = npt.NDArray[Any]

GREY = ("MONOCHROME1", "MONOCHROME2")
READ = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR", *GREY)
OTHERS = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")  # in the standard, but not supported
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # VOI LUT functions of a window


def check(dataset: Dataset) -> None:
    """Check before decoding that ``rgb`` supports an object's attributes.

    Raises:
        UnsupportedImage: the photometric interpretation or the VOI LUT function is not supported.

    """
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in READ:
        name = (
            photometric if photometric in OTHERS else "unknown"
        )  # another value could be patient data; do not echo it
        raise UnsupportedImage(
            f"the photometric interpretation {name} is not supported; send RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, "
            "YBR_RCT, PALETTE COLOR, MONOCHROME1 or MONOCHROME2"
        )
    if dataset.SamplesPerPixel != (1 if photometric in (*GREY, "PALETTE COLOR") else 3):
        raise UnsupportedImage(
            f"{photometric} with {dataset.SamplesPerPixel} samples per pixel is not supported; send RGB or grey"
        )
    if _function(dataset) not in FUNCTIONS:
        raise UnsupportedImage(f"the VOI LUT function is not supported; send {', '.join(FUNCTIONS)} or none")


def rgb(samples: Samples, photometric: str, dataset: Dataset) -> Pixels:
    """Convert decoded samples to RGB, uint8 (H, W, 3).

    Args:
        samples: (H, W) or (H, W, 3), integers.
        photometric: photometric interpretation of the samples, which the decoder may have changed.
        dataset: attributes of the object.

    Raises:
        UnsupportedImage: the samples are neither RGB, grey nor palette indices.

    """
    if photometric == "PALETTE COLOR":
        return _eight_bits(apply_color_lut(samples, dataset), int(dataset.RedPaletteColorLookupTableDescriptor[2]))
    if photometric == "RGB" and samples.ndim == 3:
        return _eight_bits(samples, dataset.BitsStored)
    if photometric in GREY and samples.ndim == 2:
        grey = _grey(samples, dataset)
        grey = 255 - grey if photometric == "MONOCHROME1" else grey
        return np.repeat(grey[..., None], 3, axis=2)
    raise UnsupportedImage("the decoded frame is neither RGB nor grey; send it uncompressed")


def _grey(samples: Samples, dataset: Dataset) -> Pixels:
    """Apply the modality LUT or rescale, then the first VOI LUT or window (PS3.3, C.11.1 and C.11.2).

    Without a VOI LUT or window, the full range of storable values is shown.
    """
    signed = bool(dataset.get("PixelRepresentation", 0))
    values, bits, lowest = samples, int(dataset.BitsStored), -(2 ** (dataset.BitsStored - 1)) if signed else 0
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    if dataset.get("ModalityLUTSequence"):  # replaces slope and intercept
        (values, bits), lowest = _looked_up(values, dataset.ModalityLUTSequence[0], dataset), 0
        slope, intercept = 1.0, 0.0
    if dataset.get("VOILUTSequence"):
        return _eight_bits(*_looked_up(values * slope + intercept, dataset.VOILUTSequence[0], dataset))
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return _eight_bits(values.astype(np.int64) - lowest, bits)
    return _windowed(values * slope + intercept, dataset)


def _looked_up(values: Samples, table: Dataset, dataset: Dataset) -> tuple[Samples, int]:
    """Look values up in a LUT; return uint8 or uint16 and their bits (PS3.3, C.11.1.1 and C.11.2.1.1).

    pydicom 3.0 is not used: its ``apply_voi`` computes indices in the type of the entries, so that with 8-bit tables up
    to 94 % of the pixels are wrong. Neither its ``apply_modality_lut`` nor highdicom's tables support entries of 10 to
    15 bits.
    """
    length, first, bits = map(int, table.LUTDescriptor)
    entries: Any = table.LUTData
    if isinstance(entries, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        packed = len(entries) < 2 * (length or 2**16)  # one byte per entry instead of two
        entries = np.frombuffer(entries, np.uint8 if packed else f"{order}u2")
    return apply_lut(np.rint(values).astype(np.int64), np.atleast_1d(np.asarray(entries)), first), bits


def _windowed(values: Samples, dataset: Dataset) -> Pixels:
    """Apply the window to values; return uint8 (PS3.3, C.11.2.1.2.1 and C.11.2.1.3)."""
    centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = _function(dataset)
    width = max(width, 1e-3 + (function == "LINEAR"))  # LINEAR covers width - 1 values
    with np.errstate(over="ignore"):  # exp() overflows to infinity far below a narrow sigmoid, which gives 0
        shown: npt.NDArray[np.float64] = apply_voi_window(values, centre, width, function, (0.0, 255.0))
    return np.rint(shown).astype(np.uint8)


def _function(dataset: Dataset) -> str:
    return str(dataset.get("VOILUTFunction") or FUNCTIONS[0])


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)


def _eight_bits(samples: Samples, bits: int) -> Pixels:
    if bits == 8:
        return samples.astype(np.uint8)
    scaled: npt.NDArray[np.float64] = np.rint(samples * (255 / (2**bits - 1)))
    return np.clip(scaled, 0, 255).astype(np.uint8)
