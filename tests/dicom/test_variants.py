"""DICOM objects as makers of endoscopes, frame grabbers and archives vary them: segmented right, or refused by name."""

import asyncio
import io
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SMPTEST211020UncompressedProgressiveActiveVideo,
    VideoPhotographicImageStorage,
    VLPhotographicImageStorage,
)

from service.frames.codec import to_rgb
from tests.support.dicom_objects import (
    DICOM,
    MASKS,
    PICTURES,
    compressed,
    dicom,
    grey,
    needs_dicom,
    palette,
    segmentation,
    sent,
    sixteen_bits,
    table,
    valid,
    written,
    ybr,
)
from tests.support.pictures import SAMPLES, dice, encoded, mask_of, red_box
from tests.support.predictors import GatedPredictor
from tests.support.processes import Server
from tests.support.serving import serving, until

pytestmark = needs_dicom
PICTURE, MASK = PICTURES[0], MASKS[0]
LOW, HIGH = 1000, 1200
DIM = np.where(MASK, HIGH, LOW).astype(np.uint16)  # of 12 bits: nothing is bright without its window
DARK = (2200 - DIM).astype(np.uint16)
SIGNED = DIM.astype(np.int16) - 1100
UPPER_HALF = [0] * 150 + [255] * 51  # of a table from LOW to HIGH
WINDOW = {"WindowCenter": 1100, "WindowWidth": 100}

GREY: dict[str, Callable[[], Dataset]] = {
    "a window": partial(grey, DIM, **WINDOW),
    "the first of two windows": partial(grey, DIM, WindowCenter=[1100, 20], WindowWidth=[100, 10]),
    "an exact window": partial(grey, DIM, **WINDOW, VOILUTFunction="LINEAR_EXACT"),
    "a step": partial(grey, DIM, WindowCenter=1100, WindowWidth=1),
    "inverted, with a window": partial(grey, DARK, photometric="MONOCHROME1", **WINDOW),
    "a scale and a window": partial(
        grey, DIM, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1200, WindowWidth=200
    ),
    "signed": partial(grey, 16 * SIGNED),
    "signed, with a window": partial(grey, SIGNED, WindowCenter=0, WindowWidth=50),
    "a table": partial(grey, DIM, VOILUTSequence=table(UPPER_HALF, LOW, 8)),
    "a table and a window": partial(grey, DIM, VOILUTSequence=table(UPPER_HALF, LOW, 8), WindowCenter=9, WindowWidth=9),
    "a table of sixteen bits": partial(grey, DIM, VOILUTSequence=table([257 * n for n in UPPER_HALF], LOW, 16)),
    "a table of eight bits and more entries than they count": partial(
        grey, DIM, VOILUTSequence=table([0] * 1100 + [255] * 2900, 0, 8)
    ),
    "a table of the modality of twelve bits": partial(
        grey, DIM, ModalityLUTSequence=table([0] * 1100 + [4095] * 2900, 0, 12)
    ),
    "a table of the modality": partial(grey, DIM, ModalityLUTSequence=table(UPPER_HALF, LOW, 8)),
    "a table of the modality, with a window": partial(
        grey,
        DIM,
        ModalityLUTSequence=table([20 * n for n in UPPER_HALF], LOW, 16),
        WindowCenter=2500,
        WindowWidth=1000,
    ),
}


@pytest.mark.parametrize("name", GREY)
async def test_grey_is_seen_as_its_tables_and_windows_show_it(name: str) -> None:
    async with serving() as it:
        answer = await sent(it, GREY[name]())
    assert answer.status_code == 200, answer.text
    assert dice(mask_of(answer.content), MASK) > 0.95


def test_a_sigmoid_window_has_shoulders() -> None:
    from service.dicom import pixels  # needs highdicom

    ramp = np.arange(256, dtype=np.uint16)[None]
    made = grey(ramp, WindowCenter=128, WindowWidth=100, VOILUTFunction="SIGMOID")
    shown = pixels.rgb(ramp, "MONOCHROME2", made)[0, :, 0]
    assert [*shown[[28, 78, 128, 178, 228]]] == [5, 30, 128, 225, 250]  # 255 / (1 + exp(-4 * (value - 128) / 100))


def extended(picture: Image.Image) -> Dataset:
    """Return a JPEG of the extended process (SOF1): in 8 bits baseline, but for its name."""
    made = dicom([picture], JPEGBaseline8Bit)
    made.PixelData = made.PixelData.replace(b"\xff\xc0", b"\xff\xc1", 1)
    made.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    return made


def declaring(made: Dataset, **attributes: object) -> Dataset:
    """Return an object whose attributes are those of before its compression."""
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def lacking(made: Dataset, *names: str) -> Dataset:
    for name in names:
        delattr(made, name)
    return made


COLOURED: dict[str, tuple[Callable[[Image.Image], Dataset], float]] = {
    "palette of 8 bits": (partial(palette, bits=8), 0.97),
    "palette of 16 bits": (palette, 0.97),
    "YBR_FULL": (ybr, 0.97),
    "YBR_FULL_422": (partial(ybr, photometric="YBR_FULL_422"), 0.97),
    "RGB of 16 bits": (sixteen_bits, 0.99),
    "RGB of 12 bits": (partial(sixteen_bits, bits=12), 0.99),
    "RLE of 16 bits": (lambda picture: compressed(sixteen_bits(picture), RLELossless), 0.99),
    "JPEG-LS of 16 bits": (lambda picture: compressed(sixteen_bits(picture), JPEGLSLossless), 0.99),
    "JPEG 2000 of 16 bits": (lambda picture: compressed(sixteen_bits(picture), JPEG2000Lossless), 0.99),
    "extended JPEG": (extended, 0.97),
    "lossy JPEG-LS": (lambda picture: compressed(dicom([picture]), JPEGLSNearLossless, jls_error=3), 0.97),
    "lossy JPEG 2000": (lambda picture: compressed(dicom([picture]), JPEG2000, j2k_cr=[10]), 0.97),
    "JPEG 2000 that declares what it was before": (
        lambda picture: declaring(
            compressed(dicom([picture], PhotometricInterpretation="YBR_RCT"), JPEG2000Lossless),
            PhotometricInterpretation="YBR_FULL",
        ),
        0.99,
    ),
    "JPEG 2000 that declares planes": (
        lambda picture: declaring(compressed(dicom([picture]), JPEG2000Lossless), PlanarConfiguration=1),
        0.99,
    ),
    "RGB that does not say its sign": (lambda picture: lacking(dicom([picture]), "PixelRepresentation"), 0.99),
    "RLE that does not say how it is stored": (
        lambda picture: lacking(dicom([picture], RLELossless), "PixelRepresentation", "PlanarConfiguration"),
        0.99,
    ),
    "lossy JPEG 2000 of YBR": (lambda picture: compressed(ybr(picture), JPEG2000, j2k_psnr=[45]), 0.97),
}


@pytest.mark.parametrize("name", COLOURED)
async def test_colour_is_seen_however_it_is_stored(name: str) -> None:
    make, _ = COLOURED[name]
    async with serving() as it:
        answer = await sent(it, make(PICTURE))
    assert answer.status_code == 200, answer.text
    assert dice(mask_of(answer.content), MASK) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", COLOURED)
def test_the_network_sees_what_it_sees_in_a_png(name: str, server: Server) -> None:
    make, least = COLOURED[name]
    picture = Image.open(SAMPLES[0]).convert("RGB")
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        of_png = client.post("/segment", content=encoded(picture)).content
        answer = client.post("/segment", content=written(make(picture)), headers=DICOM)
    assert answer.status_code == 200, answer.text
    found = dice(mask_of(answer.content), mask_of(of_png))
    print(name, found)
    assert found >= least


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda syntax: syntax.name)
async def test_other_orders_of_bytes_are_read(syntax: UID) -> None:
    made = grey(DIM, VOILUTSequence=table(UPPER_HALF, LOW, 8))
    if not syntax.is_little_endian:
        made.PixelData = DIM.byteswap().tobytes()
        made.VOILUTSequence[0].LUTData = np.asarray(UPPER_HALF, ">u2").tobytes()
    made.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    order = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    made.save_as(buffer, **order, enforce_file_format=True)
    async with serving() as it:
        answer = await sent(it, buffer.getvalue())
    assert answer.status_code == 200, answer.text
    assert dice(mask_of(answer.content), MASK) > 0.95


def _in(syntax: UID) -> bytes:
    made = dicom([PICTURE], JPEGBaseline8Bit)
    made.file_meta.TransferSyntaxUID = syntax
    return written(made)


UNREAD: dict[str, tuple[Callable[[], bytes], str]] = {
    **{
        syntax.name: (partial(_in, syntax), syntax.name)
        for syntax in (
            JPEGLossless,
            SMPTEST211020UncompressedProgressiveActiveVideo,
        )
    },
    "JPEG of 12 bits": (
        lambda: written(declaring(extended(PICTURE), BitsAllocated=16, BitsStored=12, HighBit=11)),
        "JPEG with more than 8 bits is not supported",
    ),
    "CMYK": (
        lambda: written(dicom([PICTURE], PhotometricInterpretation="CMYK")),
        "interpretation CMYK is not supported",
    ),
    "half of YBR": (
        lambda: written(dicom(PICTURES, PhotometricInterpretation="YBR_PARTIAL_422")),
        "interpretation YBR_PARTIAL_422 is not supported",
    ),
    "what nobody knows": (
        lambda: written(dicom([PICTURE], PhotometricInterpretation="DOE JANE")),
        "interpretation unknown is not supported",
    ),
    "grey of three": (
        lambda: written(dicom([PICTURE], PhotometricInterpretation="MONOCHROME2")),
        "MONOCHROME2 with 3 samples",
    ),
    "a window of its own": (lambda: written(grey(DIM, **WINDOW, VOILUTFunction="CUBIC")), "VOI LUT function"),
}


@pytest.mark.parametrize("name", UNREAD)
async def test_what_is_not_read_is_named_once_for_all_frames_and_whatever_is_asked_for(name: str) -> None:
    make, reason = UNREAD[name]
    async with serving() as it:
        for accept in ("image/png", "application/dicom"):
            answer = await sent(it, make(), accept=accept)
            assert answer.status_code == 415, answer.text
            assert reason in answer.json()["detail"]
        assert it.metric("pranet_decodes_total") == 0


AMBIGUOUS: dict[str, tuple[Callable[[], Dataset], str]] = {
    "RGB": (lambda: dicom([PICTURE]), "PlanarConfiguration"),
    "YBR": (lambda: ybr(PICTURE), "PlanarConfiguration"),
    "grey": (lambda: grey(DIM), "PixelRepresentation"),
    "palette": (lambda: palette(PICTURE), "PixelRepresentation"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_pixels_that_can_be_read_in_two_ways_are_refused_with_what_is_missing(name: str) -> None:
    make, attribute = AMBIGUOUS[name]
    body = written(make())
    element = struct.pack("<HH", *divmod(tag_for_keyword(attribute) or 0, 2**16))
    begin = body.index(element + b"US")
    async with serving() as it:
        answer = await sent(it, body[:begin] + body[begin + 10 :])  # tag, US, length and value
        assert (answer.status_code, f"has no {attribute}," in answer.json()["detail"]) == (422, True), answer.text
        assert it.metric("pranet_decodes_total") == 0


SOURCES: dict[str, tuple[UID, str, list[Image.Image]]] = {
    "secondary capture": (SecondaryCaptureImageStorage, "OT", PICTURES[:1]),
    "secondary capture of several frames": (MultiFrameTrueColorSecondaryCaptureImageStorage, "OT", PICTURES),
    "photograph": (VLPhotographicImageStorage, "XC", PICTURES[:1]),
    "video photograph": (VideoPhotographicImageStorage, "XC", PICTURES),
}


@pytest.mark.parametrize("name", SOURCES)
async def test_a_segmentation_refers_to_other_classes_of_sources_too(name: str, tmp_path: Any) -> None:
    kind, modality, pictures = SOURCES[name]
    source = dicom(pictures, SOPClassUID=kind, Modality=modality, ConversionType="WSD")
    async with serving() as it:
        answer = await sent(it, source, accept="application/dicom")
    assert answer.status_code == 200, answer.text
    made = segmentation(answer.content)
    assert {each.value for each in made.iterall() if each.keyword == "ReferencedSOPClassUID"} == {kind}
    for found, mask in zip(made.pixel_array.reshape(-1, *MASK.shape) > 0, MASKS, strict=False):
        assert dice(found, mask) > 0.95
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    valid(tmp_path / "seg.dcm")


@pytest.mark.parametrize("name", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
async def test_a_source_that_cannot_be_referred_to_makes_no_segmentation_but_a_mask(name: str) -> None:
    source = dicom([PICTURE], **{name: "no identifier"})
    async with serving() as it:
        refused = await sent(it, source, accept="application/dicom")
        answered = await sent(it, source)
    assert (refused.status_code, answered.status_code) == (422, 200)
    assert f"no valid {name}" in refused.json()["detail"]


@pytest.mark.parametrize("frames", [1, 3])
async def test_a_region_of_interest_bounds_the_segmentation_in_the_geometry_of_the_whole(frames: int) -> None:
    async with serving() as it:
        answer = await sent(it, dicom(PICTURES[:frames]), "?roi=10,10,30,30", accept="application/dicom")
    assert answer.status_code == 200, answer.text
    made = segmentation(answer.content)
    assert (made.Columns, made.Rows) == PICTURE.size
    within = np.zeros_like(MASK)
    within[10:40, 10:40] = True
    found = made.pixel_array.reshape(frames, *MASK.shape) > 0
    for one, mask in zip(found, MASKS[:frames], strict=True):
        assert dice(one, mask & within) > 0.95


@pytest.mark.parametrize("frames", [1, 3])
async def test_who_leaves_while_a_segmentation_is_made_takes_its_frames_along(frames: int) -> None:
    predictor = GatedPredictor()
    pictures = [red_box(100, 80, (10, 10, 60, 40))] * frames
    async with serving(predictor, max_batch_size=1, max_archives=1) as it:
        leaving = asyncio.create_task(sent(it, dicom(pictures), accept="application/dicom"))
        await predictor.has_begun()
        leaving.cancel()
        await until(lambda: it.service.segmenter.in_flight == 0)
        predictor.open()
        await until(lambda: it.metric("pranet_rejected_total", {"reason": "client-left"}) == 1)
        assert it.service.archives.working == 0
        answer = await sent(it, dicom(pictures), accept="application/dicom")
    assert answer.status_code == 200
    assert predictor.frames == 1 + frames


def test_frames_are_found_by_what_was_checked_and_not_by_a_table_that_points_elsewhere() -> None:
    made = dicom([PICTURES[0]], JPEG2000Lossless)
    made.ExtendedOffsetTable = struct.pack("<Q", 4)
    made.ExtendedOffsetTableLengths = struct.pack("<Q", 10)
    from service.dicom import study  # it needs packages that not every Python has

    (decode,) = study.read(written(made), 10**7).frames
    assert np.array_equal(np.asarray(to_rgb(decode(), 10**7)[0]), np.asarray(PICTURES[0].convert("RGB")))
