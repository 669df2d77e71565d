"""DICOM Segmentations of sources as hospitals have them: copied faithfully, stated truly, opened by viewers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.support.dicom_objects import (
    MASKS,
    PICTURES,
    compressed,
    dicom,
    needs_dicom,
    segmentation,
    sent,
    valid,
    written,
)
from tests.support.pictures import dice, red_box
from tests.support.serving import Running, serving

pytestmark = needs_dicom

# As they stand in a file (PS3.5, annexes H to K). pydicom would write that of ISO 2022 IR 58 without its escapes.
NAMES = {
    "\\ISO 2022 IR 87": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    "ISO 2022 IR 13\\ISO 2022 IR 87": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    "\\ISO 2022 IR 149": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    "\\ISO 2022 IR 58": b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
    "ISO_IR 192": "Wang^XiaoDong=王^小东".encode(),
    "GB18030": "Wang^XiaoDong=王^小东".encode("gb18030"),
    "ISO_IR 100": "Müller^Zoë".encode("latin-1"),
    "": "Müller^Zoë".encode("latin-1"),  # undeclared
}


async def segmented(it: Running, made: Dataset | bytes, query: str = "") -> tuple[Any, dict[str, str]]:
    answer = await sent(it, made, query, accept="application/dicom")
    assert answer.status_code == 200, answer.text
    return segmentation(answer.content), dict(answer.headers)


@pytest.mark.parametrize("charset", NAMES)
async def test_a_name_in_any_character_set_is_copied_byte_for_byte(charset: str) -> None:
    name = NAMES[charset] + b" " * (len(NAMES[charset]) % 2)
    source = dicom(PICTURES[:1], SpecificCharacterSet=charset.split("\\"), PatientName="N" * len(name))
    body = written(source).replace(b"N" * len(name), name)
    async with serving() as it:
        answer = await sent(it, body, accept="application/dicom")
    assert answer.status_code == 200, answer.text
    assert b"PN" + len(name).to_bytes(2, "little") + name in answer.content
    made = segmentation(answer.content)
    assert list(np.atleast_1d(made.get("SpecificCharacterSet") or "")) == charset.split("\\")
    assert "x-left-out" not in answer.headers


async def test_text_of_an_object_without_value_representations_is_copied_too() -> None:
    source = dicom(
        PICTURES[:1], SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="山田^太郎", StudyTime="11:20:00"
    )
    source.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    source.save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=True)
    async with serving() as it:
        made, _ = await segmented(it, buffer.getvalue())
    assert (str(made.PatientName), made.StudyTime) == ("山田^太郎", "112000")


FOREIGN = {
    "a time with colons": ("StudyTime", "11:20:00", "112000"),
    "a time with colons and fractions": ("StudyTime", "11:20:00.25", "112000.25"),
    "a time with colons, without seconds": ("StudyTime", "11:20", "1120"),
    "a date with dots": ("StudyDate", "2026.01.02", "20260102"),
    "a date with hyphens": ("PatientBirthDate", "1970-01-31", "19700131"),
    "a lower-case sex": ("PatientSex", "f", "F"),
    "a long name of the study": ("StudyDescription", "x" * 80, "x" * 80),
    "no date": ("StudyDate", "yesterday", None),
    "no time": ("StudyTime", "25:99:00", None),
    "no sex": ("PatientSex", "unknown", None),
    "no age": ("PatientAge", "fifty", None),
    "no weight": ("PatientWeight", "12,5", None),
    "below": ("OtherPatientIDsSequence", "sequence", None),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_foreign_spelling_is_mended_or_left_out_and_named(name: str, tmp_path: Path) -> None:
    keyword, given, right = FOREIGN[name]
    source = dicom(PICTURES[:1])
    if given == "sequence":
        below = Dataset()
        below.PatientID, below.TypeOfPatientID, below.IssuerOfPatientID = "7", "no code!", "x"
        given = [below]
    setattr(source, keyword, "12.5" if keyword == "PatientWeight" else given)
    async with serving() as it:
        made, headers = await segmented(it, written(source).replace(b"12.5", b"12,5"))
    assert (str(made.get(keyword) or "") or None) == right
    assert headers.get("x-left-out") == (None if right else keyword)
    if right != "x" * 80:
        (tmp_path / "seg.dcm").write_bytes(b"")
        made.save_as(tmp_path / "seg.dcm")
        valid(tmp_path / "seg.dcm")


LOSSY: dict[str, tuple[UID, dict[str, Any], tuple[str, str | None]]] = {
    "JPEG": (JPEGBaseline8Bit, {}, ("01", "ISO_10918_1")),
    "JPEG that says it is without loss": (JPEGBaseline8Bit, {"LossyImageCompression": "00"}, ("01", "ISO_10918_1")),
    "lossy JPEG-LS": (JPEGLSNearLossless, {}, ("01", "ISO_14495_1")),
    "JPEG 2000": (JPEG2000, {}, ("01", "ISO_15444_1")),
    "JPEG 2000 that says it is without loss": (JPEG2000, {"LossyImageCompression": "00"}, ("00", None)),
    "uncompressed": (ExplicitVRLittleEndian, {}, ("00", None)),
    "RLE": (RLELossless, {}, ("00", None)),
    "JPEG 2000 without loss": (JPEG2000Lossless, {}, ("00", None)),
    "uncompressed again": (
        ExplicitVRLittleEndian,
        {
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": "8",
            "LossyImageCompressionMethod": "ISO_10918_1",
        },
        ("01", "ISO_10918_1"),
    ),
}
OPTIONS = {JPEGLSNearLossless: {"jls_error": 3}, JPEG2000: {"j2k_cr": [10]}}


@pytest.mark.parametrize("name", LOSSY)
async def test_it_states_the_loss_of_its_source(name: str, tmp_path: Path) -> None:
    syntax, attributes, (lossy, method) = LOSSY[name]
    if syntax in OPTIONS:
        source = compressed(dicom(PICTURES[:1]), syntax, **OPTIONS[syntax])
        assert "LossyImageCompression" not in source
    else:
        source = dicom(PICTURES[:1], syntax)
    for keyword, value in attributes.items():
        setattr(source, keyword, value)
    async with serving() as it:
        made, _ = await segmented(it, source)
    assert (made.LossyImageCompression, made.get("LossyImageCompressionMethod")) == (lossy, method)
    if method:
        raw = 100 * 80 * 3
        ratio = float(attributes.get("LossyImageCompressionRatio", raw / len(source.PixelData)))
        assert float(made.LossyImageCompressionRatio) == pytest.approx(ratio, rel=0.01)
    made.save_as(tmp_path / "seg.dcm")
    valid(tmp_path / "seg.dcm")


async def test_a_ratio_that_is_no_number_is_computed() -> None:
    source = dicom(PICTURES[:1], JPEGBaseline8Bit)
    source.LossyImageCompressionRatio, source.LossyImageCompressionMethod = "10.1", "ISO_10918_1"
    async with serving() as it:
        made, _ = await segmented(it, written(source).replace(b"10.1", b"10:1"))
    assert float(made.LossyImageCompressionRatio) == pytest.approx(100 * 80 * 3 / len(source.PixelData), rel=0.01)


async def test_it_has_all_that_must_be_there_and_what_viewers_show() -> None:
    async with serving() as it:
        made, _ = await segmented(it, dicom(PICTURES[:1], SeriesNumber=3))
    assert made.ContentCreatorName is None or str(made.ContentCreatorName) == ""
    assert "ContentCreatorName" in made
    assert made.SeriesDescription == "PraNet polyp segmentation"
    assert made.SeriesNumber == 9003
    lightness, green, yellow = (round(value / 257) for value in made.SegmentSequence[0].RecommendedDisplayCIELabValue)
    assert (lightness * 100 / 255, green - 128, yellow - 128) == pytest.approx((88.7, -76.6, 61.3), abs=1)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
async def test_each_frame_has_a_plane_of_its_own(frames: int, kind: str, tmp_path: Path) -> None:
    pictures = [red_box(101, 81, box) for box in ((10, 10, 60, 40), (0, 0, 0, 0), (5, 30, 45, 70))][:frames]
    async with serving() as it:
        made, _ = await segmented(it, dicom(pictures), f"?segmentation_type={kind}")
    shared, places = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert [each.PlanePositionSequence[0].ImagePositionPatient[2] for each in places] == list(range(frames))
    assert made.SegmentationType == kind.upper()
    for found, picture in zip(made.pixel_array.reshape(frames, 81, 101) > 0, pictures, strict=True):
        assert dice(found, np.asarray(picture)[..., 0] > 0) > 0.95
    made.save_as(tmp_path / "seg.dcm")
    if kind == "binary":  # Debian's dciodvfy is older than label maps
        valid(tmp_path / "seg.dcm")
    assert len(MASKS) >= frames


async def test_each_frame_of_a_binary_segmentation_names_its_segment() -> None:
    async with serving() as it:
        made, _ = await segmented(it, dicom(PICTURES))
    groups = made.PerFrameFunctionalGroupsSequence
    assert [each.SegmentIdentificationSequence[0].ReferencedSegmentNumber for each in groups] == [1] * len(PICTURES)
    assert "SegmentIdentificationSequence" not in made.SharedFunctionalGroupsSequence[0]


async def test_a_type_of_segmentation_needs_a_segmentation() -> None:
    async with serving() as it:
        answer = await sent(it, dicom(PICTURES[:1]), "?segmentation_type=labelmap")
    assert answer.status_code == 422
    assert "segmentation_type applies to a DICOM Segmentation only" in answer.json()["detail"]


@pytest.mark.parametrize(("frames", "other"), [(1, "application/x-ndjson"), (2, "image/png")])
async def test_an_option_of_a_segmentation_holds_if_the_number_of_frames_leaves_no_other_answer(
    frames: int, other: str
) -> None:
    async with serving() as it:
        accept = f"{other}, application/dicom;q=0.5"
        answer = await sent(it, dicom(PICTURES[:1] * frames), "?segmentation_type=labelmap", accept=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
