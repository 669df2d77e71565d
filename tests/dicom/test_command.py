"""``pranet segment`` with DICOM: objects, media and series."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGBaseline8Bit, RLELossless, SegmentationStorage, generate_uid

from service.commands.main import main
from service.commands.segment import session
from tests.support.dicom_objects import PICTURES, dicom, needs_dicom, valid, written
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES
from tests.support.predictors import RedPredictor
from tests.support.processes import pranet


@needs_dicom
@pytest.mark.slow
def test_the_command_writes_masks_or_a_segmentation(tmp_path: Path) -> None:
    picture = Image.open(SAMPLES[0]).convert("RGB")
    black = Image.new("RGB", picture.size)
    (tmp_path / "study.dcm").write_bytes(written(dicom([picture, black], RLELossless)))
    done = pranet("segment", tmp_path / "study.dcm", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    frames_of_it = sorted((tmp_path / "out/study.dcm.frames").iterdir())
    assert [file.name for file in frames_of_it] == ["00000000.png", "00000001.png"]
    done = pranet("segment", tmp_path / "study.dcm", "--out", tmp_path / "seg.dcm", "--omit-empty")
    assert done.returncode == 0, done.stderr
    made = dcmread(tmp_path / "seg.dcm")
    assert (made.Modality, made.NumberOfFrames) == ("SEG", 1)
    assert "pranet: 2 pictures, 1 with a polyp, 0 failed" in done.stderr


def test_frames_are_left_out_of_a_segmentation_only(tmp_path: Path) -> None:
    done = pranet("segment", SAMPLES[0], "-o", tmp_path / "out", "--omit-empty")
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "--out X.dcm" in done.stderr


@needs_dicom
@pytest.mark.parametrize("count", [1, 2])
def test_masks_of_frames_that_an_object_does_not_have_stay(
    count: int, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.dcm").write_bytes(written(dicom(PICTURES[:count])))
    folder = tmp_path / "out/x.dcm.frames"
    folder.mkdir(parents=True)
    for number in range(3):  # of an object with more frames
        (folder / f"{number:08d}.png").write_bytes(b"earlier")
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(tmp_path / "x.dcm"), "-o", str(tmp_path / "out"), "--overwrite"]) == 0
    stay = [file.name for file in sorted(folder.iterdir()) if file.read_bytes() == b"earlier"]
    assert stay == [f"{number:08d}.png" for number in range(0 if count == 1 else 2, 3)]
    assert len(list(folder.iterdir())) == 3
    told = f"also has {'3 frames' if count == 1 else '1 frame'} from {stay[0]} on, which this run did not make"
    assert told in capsys.readouterr().err


@needs_dicom
def test_the_mask_of_a_frame_of_an_object_that_failed_is_deleted(tmp_path: Path, patched: Patches) -> None:
    made = dicom(PICTURES[:2], JPEGBaseline8Bit)
    jpegs = list(generate_frames(made.PixelData, number_of_frames=2))
    jpegs[-1] = jpegs[-1][: len(jpegs[-1]) // 4].ljust(len(jpegs[-1]), b"\0")
    made.PixelData = encapsulate(jpegs)
    (tmp_path / "x.dcm").write_bytes(written(made))
    folder = tmp_path / "out/x.dcm.frames"
    folder.mkdir(parents=True)
    (folder / "00000001.png").write_bytes(b"earlier")
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(tmp_path / "x.dcm"), "-o", str(tmp_path / "out"), "--overwrite"]) == 1
    assert [file.name for file in folder.iterdir()] == ["00000000.png"]


def folder_of_a_series(folder: Path) -> list[str]:
    """Write three pictures of one series as media store them, with a Segmentation among them; return their UIDs."""
    study, series = generate_uid(), generate_uid()
    picture = Image.open(SAMPLES[0]).convert("RGB").resize((142, 124))
    folder.mkdir()
    uids = []
    for number in (3, 1, 2):
        made = dicom(
            [picture], JPEGBaseline8Bit, StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=number
        )
        (folder / f"1.2.840.{4 - number}").write_bytes(written(made))
        uids.append((number, made.SOPInstanceUID))
    (folder / "SEG00001").write_bytes(written(dicom([picture], SOPClassUID=SegmentationStorage)))
    return [uid for _, uid in sorted(uids)]


@needs_dicom
def test_a_folder_of_a_medium_is_segmented_without_what_is_no_picture(tmp_path: Path) -> None:
    folder_of_a_series(tmp_path / "in")
    done = pranet("segment", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"1.2.840.{n}.png" for n in (1, 2, 3)]
    assert "SEG00001: skipped: the DICOM object has the SOP class Segmentation Storage" in done.stderr


@needs_dicom
def test_a_folder_of_a_series_becomes_one_segmentation_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    uids = folder_of_a_series(tmp_path / "in")
    shutil.copy(SAMPLES[0], tmp_path / "in")
    done = pranet("segment", tmp_path / "in", "-o", tmp_path / "seg.dcm")
    assert done.returncode == 0, done.stderr
    assert "polyp-1.jpg: skipped: not a DICOM object" in done.stderr
    made = dcmread(tmp_path / "seg.dcm")
    sources = [each.DerivationImageSequence[0].SourceImageSequence[0] for each in made.PerFrameFunctionalGroupsSequence]
    assert [each.ReferencedSOPInstanceUID for each in sources] == uids
    assert [
        each.ReferencedSOPInstanceUID for each in made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    ] == uids
    assert made.pixel_array.sum() > 3 * 100
    valid(tmp_path / "seg.dcm")


@needs_dicom
def test_a_copy_of_an_object_is_no_further_frame_of_a_segmentation(
    tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = folder_of_a_series(tmp_path / "in")
    (tmp_path / "in/copies").mkdir()
    shutil.copy(tmp_path / "in/1.2.840.1", tmp_path / "in/copies/a.dcm")
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(tmp_path / "in"), "-o", str(tmp_path / "seg.dcm")]) == 0
    assert "copies/a.dcm: skipped: it is a copy of " in capsys.readouterr().err
    made = dcmread(tmp_path / "seg.dcm")
    sources = [each.DerivationImageSequence[0].SourceImageSequence[0] for each in made.PerFrameFunctionalGroupsSequence]
    assert [each.ReferencedSOPInstanceUID for each in sources] == uids


@needs_dicom
def test_an_object_with_the_uid_of_another_is_not_lost_from_a_segmentation(
    tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of_a_series(tmp_path / "in")
    other = dcmread(tmp_path / "in/1.2.840.2")
    other.SOPInstanceUID = dcmread(tmp_path / "in/1.2.840.1").SOPInstanceUID
    (tmp_path / "in/1.2.840.2").write_bytes(written(other))
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(tmp_path / "in"), "-o", str(tmp_path / "seg.dcm")]) == 1
    told = f"1.2.840.2: has the SOPInstanceUID of {tmp_path / 'in/1.2.840.1'}, but other contents; leave one out"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "seg.dcm").exists()


@needs_dicom
@pytest.mark.parametrize(("frames", "place"), [(1, ""), (2, ", frame 2")])
def test_an_object_of_which_no_segmentation_can_be_made_is_named(
    frames: int, place: str, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of_a_series(tmp_path / "in")
    other = dcmread(tmp_path / "in/1.2.840.1")
    picture = Image.open(SAMPLES[0]).convert("RGB").resize((142, 124))
    made = dicom([picture] * frames, JPEGBaseline8Bit, InstanceNumber=2)
    made.StudyInstanceUID, made.SeriesInstanceUID = other.StudyInstanceUID, other.SeriesInstanceUID
    jpegs = list(generate_frames(made.PixelData, number_of_frames=frames))
    jpegs[-1] = jpegs[-1][: len(jpegs[-1]) // 4].ljust(len(jpegs[-1]), b"\0")
    made.PixelData = encapsulate(jpegs)
    (tmp_path / "in/film").write_bytes(written(made))
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(tmp_path / "in"), "-o", str(tmp_path / "seg.dcm")]) == 1
    assert f"/in/film{place}: the DICOM frame is damaged" in capsys.readouterr().err


@needs_dicom
@pytest.mark.parametrize(("attribute", "part"), [("Rows", "size"), ("SeriesInstanceUID", "series")])
def test_objects_that_make_no_segmentation_together_are_told_apart(
    attribute: str, part: str, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    one = dicom(PICTURES[:1], **uids)
    other = dicom([PICTURES[0].resize((100, 60))] if part == "size" else PICTURES[:1], **uids)
    if part == "series":
        other.SeriesInstanceUID = generate_uid()
    for number, made in enumerate((one, other)):
        (tmp_path / f"{number}.dcm").write_bytes(written(made))
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(tmp_path), "-o", str(tmp_path / "out/seg.dcm")]) == 1
    told = capsys.readouterr().err
    assert f"the objects differ in {attribute}, but a Segmentation covers one {part}; segment each {part} on" in told


@needs_dicom
def test_an_object_that_is_too_large_names_the_flag_that_allows_it(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(written(dicom([Image.new("RGB", (100, 80))])))
    done = pranet("segment", tmp_path / "x.dcm", "-o", tmp_path / "out", "--max-archive-bytes", "20000")
    assert done.returncode == 1
    assert "allow more with --max-archive-bytes" in done.stderr
