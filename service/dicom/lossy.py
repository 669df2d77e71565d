"""Says whether pixels were ever compressed with loss; a Segmentation states it of its sources (PS3.3, C.7.6.1.1.5)."""

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    HEVCM10P51,
    HEVCMP51,
    JPEG2000,
    MPEG2MPHL,
    MPEG2MPHLF,
    MPEG2MPML,
    MPEG2MPMLF,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    MPEGTransferSyntaxes,
)
from pydicom.valuerep import DSdecimal, DSfloat

MPEG2 = (MPEG2MPML, MPEG2MPMLF, MPEG2MPHL, MPEG2MPHLF)
H265 = (HEVCMP51, HEVCM10P51)
H264 = tuple(set(MPEGTransferSyntaxes) - {*MPEG2, *H265})
# The defined terms of the method (PS3.3, C.7.6.1.1.5.1).
METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    **dict.fromkeys(MPEG2, "ISO_13818_2"),
    **dict.fromkeys(H264, "ISO_14496_10"),
    **dict.fromkeys(H265, "ISO_23008_2"),
}
# The others can be without loss, and their object may say so.
ALWAYS = (JPEGBaseline8Bit, JPEGExtended12Bit, *MPEG2, *H264, *H265)


def state(made: Dataset, sources: Sequence[Dataset]) -> None:
    """Set the attributes of lossy compression in a Segmentation: what its sources say, or their transfer syntax."""
    source = next(filter(_is_lossy, sources), None)
    made.LossyImageCompression = "00" if source is None else "01"
    if source is None:
        return
    syntax = source.file_meta.TransferSyntaxUID
    ratio, method = source.get("LossyImageCompressionRatio"), source.get("LossyImageCompressionMethod")
    if any(not isinstance(each, DSfloat | DSdecimal) for each in (ratio if isinstance(ratio, MultiValue) else [ratio])):
        ratio = None  # "10:1", for example, which is no decimal string
    if syntax in METHODS and (not ratio or not method):
        ratio, method = _ratio(source), METHODS[syntax]
    if ratio and method:
        made.LossyImageCompressionRatio, made.LossyImageCompressionMethod = ratio, method


def _is_lossy(source: Dataset) -> bool:
    said, syntax = source.get("LossyImageCompression"), UID(source.file_meta.TransferSyntaxUID)
    return said == "01" or syntax in ALWAYS or (syntax in METHODS and said != "00")


def _ratio(source: Dataset) -> str:
    """Return the compression ratio: size of the uncompressed pixels by that of the compressed ones."""
    bits = source.Rows * source.Columns * source.SamplesPerPixel * source.BitsAllocated
    return f"{bits * int(source.get('NumberOfFrames') or 1) / 8 / max(1, len(source.PixelData)):.4g}"
