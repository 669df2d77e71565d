"""DICOM Segmentations in programs that nobody here wrote: dcmqi, dcmtk and dcmjs, each as it is installed."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from tests.support.dicom_objects import dicom, needs_dicom, sent
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.serving import serving

pytestmark = needs_dicom

DCMQI = shutil.which("segimage2itkimage", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
DCMJS = Path(__file__).parent / "cornerstone"
WIDTH, HEIGHT = 103, 81  # frames end inside a byte; one, three and eight of them take an odd number of bytes
NONE, *POLYPS = (0, 0, 0, 0), (10, 10, 60, 40), (5, 30, 45, 70), (50, 20, 90, 75)
FRAMES = (NONE, POLYPS[0], NONE, POLYPS[1], NONE, NONE, POLYPS[2], NONE)
CASES = {"one": (POLYPS[:1], "false"), "all": (FRAMES, "false"), "omitted": (FRAMES, "true")}
CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
TYPE = ("68496003", "SCT", "Polyp of colon")

needs_dcmqi = pytest.mark.skipif(DCMQI is None, reason="no dcmqi (pip install dcmqi)")
needs_dcmtk = pytest.mark.skipif(shutil.which("dcm2json") is None, reason="needs: apt-get install dcmtk")
needs_dcmjs = pytest.mark.skipif(
    shutil.which("node") is None or not (DCMJS / "node_modules").exists(),
    reason=f"needs Node and: npm install --prefix {DCMJS}",
)
kinds = pytest.mark.parametrize("kind", ["binary", "labelmap"])
lengths = pytest.mark.parametrize("name", CASES)


@dataclass(frozen=True, slots=True)
class Made:
    """A Segmentation of the service."""

    file: Path
    source: Dataset
    kept: list[int]  # the indices of its frames in the source
    masks: np.ndarray  # bool (N, H, W), of the pictures of its frames, each segmented alone


async def made(folder: Path, kind: str, name: str) -> Made:
    """Let the service segment the frames of a case."""
    boxes, omit = CASES[name]
    pictures = [red_box(WIDTH, HEIGHT, box) for box in boxes]
    kept = [number for number, box in enumerate(boxes) if omit == "false" or box != NONE]
    source = dicom(pictures)
    async with serving() as it:
        query = f"?segmentation_type={kind}&omit_empty={omit}"
        answer = await sent(it, source, query, accept="application/dicom")
        alone = [await it.rest.post("/segment", content=encoded(pictures[number])) for number in kept]
    assert answer.status_code == 200, answer.text
    (folder / "seg.dcm").write_bytes(answer.content)
    return Made(folder / "seg.dcm", source, kept, np.stack([mask_of(each.content) for each in alone]))


def printed(*command: object) -> str:
    """Run a program that must have nothing to complain of; return what it printed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def volume(file: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Return the voxels of an NRRD file and its header."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    header = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    sizes = [int(size) for size in header["sizes"].split()]
    voxels = np.frombuffer(gzip.decompress(body), {"short": "<i2", "unsigned char": "u1"}[header["type"]])
    return voxels.reshape(sizes[::-1]), header


@needs_dcmqi
@kinds
@lengths
async def test_dcmqi_extracts_each_mask_at_its_place_and_gaps_where_empty_frames_were_left_out(
    tmp_path: Path, kind: str, name: str
) -> None:
    given = await made(tmp_path, kind, name)
    printed(DCMQI, "--inputDICOM", given.file, "--outputDirectory", tmp_path)
    voxels, header = volume(tmp_path / "1.nrrd")
    first, last = given.kept[0], given.kept[-1]
    assert (header["space origin"], header["space directions"]) == (f"(0,0,{first})", "(1,0,0) (0,1,0) (0,0,1)")
    assert len(voxels) == last - first + 1
    assert np.array_equal(voxels[[number - first for number in given.kept]] != 0, given.masks)
    assert set(np.unique(voxels)) == {0, 1}
    assert np.count_nonzero(voxels) == np.count_nonzero(given.masks)
    ((segment,),) = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"]
    assert (segment["labelID"], segment["SegmentLabel"]) == (1, "Polyp")
    assert (segment["SegmentAlgorithmType"], segment["SegmentAlgorithmName"]) == ("AUTOMATIC", "PraNet")
    assert _code(segment["SegmentedPropertyCategoryCodeSequence"]) == CATEGORY
    assert _code(segment["SegmentedPropertyTypeCodeSequence"]) == TYPE


def _code(sequence: Any) -> tuple[str, str, str]:
    item = sequence[0] if isinstance(sequence, list) else sequence
    return item["CodeValue"], item["CodingSchemeDesignator"], item["CodeMeaning"]


def unpadded(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the masks among stored values, behind which a byte may be filled up."""
    return values[: masks.size].reshape(masks.shape) != 0


@needs_dcmtk
@kinds
@lengths
async def test_dcmtk_dumps_it_and_turns_it_into_json_without_a_warning(tmp_path: Path, kind: str, name: str) -> None:
    given = await made(tmp_path, kind, name)
    assert "Polyp of colon" in printed("dcmdump", given.file)
    read = Dataset.from_json(printed("dcm2json", given.file))
    assert (read.Modality, read.Rows, read.Columns, read.NumberOfFrames) == ("SEG", HEIGHT, WIDTH, len(given.kept))
    values = np.frombuffer(read.PixelData, np.uint8)
    values = np.unpackbits(values, bitorder="little") if kind == "binary" else values
    assert np.array_equal(unpadded(values, given.masks), given.masks)


@needs_dcmjs
@kinds
@lengths
async def test_dcmjs_names_its_attributes_and_reads_its_frames(tmp_path: Path, kind: str, name: str) -> None:
    given = await made(tmp_path, kind, name)
    read = json.loads(printed("node", DCMJS / "read.mjs", given.file))
    segment = read["SegmentSequence"][-1]  # of a label map, the first is the background
    assert (segment["SegmentNumber"], segment["SegmentLabel"]) == (1, "Polyp")
    assert _code(segment["SegmentedPropertyCategoryCodeSequence"]) == CATEGORY
    assert _code(segment["SegmentedPropertyTypeCodeSequence"]) == TYPE
    frames = read["PerFrameFunctionalGroupsSequence"]
    sources = [each["DerivationImageSequence"][0]["SourceImageSequence"][0] for each in frames]
    assert {each["ReferencedSOPInstanceUID"] for each in sources} == {given.source.SOPInstanceUID}
    assert [each.get("ReferencedFrameNumber", 1) for each in sources] == [number + 1 for number in given.kept]
    assert np.array_equal(unpadded(np.array(read["PixelData"]), given.masks), given.masks)
