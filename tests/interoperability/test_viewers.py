"""DICOM Segmentations in the code with which a viewer reads them."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

import numpy as np
import pytest

from tests.support.dicom_objects import dicom, needs_dicom, sent
from tests.support.pictures import red_box
from tests.support.serving import serving

CORNERSTONE = Path(__file__).parent / "cornerstone"
BOXES = ((10, 10, 60, 40), (0, 0, 0, 0), (5, 30, 45, 70))
ODD, EVEN = (104, 81), (100, 80)  # 1053 and 1000 bytes of bits in a frame
# An odd number of bytes in a single frame is what the adapters cannot read; docs/dicom.md says so.
CASES = [(EVEN, 1, "binary"), (EVEN, 3, "binary"), (ODD, 3, "labelmap"), (ODD, 1, "labelmap")]


@needs_dicom
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not (CORNERSTONE / "node_modules").exists(),
    reason=f"needs Node and: npm install --prefix {CORNERSTONE}",
)
@pytest.mark.parametrize(("size", "frames", "kind"), CASES)
async def test_cornerstone_puts_each_mask_onto_its_frame(
    size: tuple[int, int], frames: int, kind: str, tmp_path: Path
) -> None:
    source = dicom([red_box(*size, box) for box in BOXES[:frames]])
    async with serving() as it:
        answer = await sent(it, source, f"?segmentation_type={kind}", accept="application/dicom")
    assert answer.status_code == 200, answer.text
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    arguments = (tmp_path / "seg.dcm", source.SOPInstanceUID, frames, source.Rows, source.Columns)
    process = await asyncio.create_subprocess_exec(
        "node", CORNERSTONE / "load.mjs", *map(str, arguments), stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found = [np.array(each) for each in json.loads(out)]
    for pixels, (left, top, right, bottom) in zip(found, BOXES, strict=False):
        inside = np.zeros(size[::-1], bool)
        inside[top:bottom, left:right] = True
        seen = np.zeros(inside.size, bool)
        seen[pixels.astype(int)] = True
        assert 2 * (seen & inside.ravel()).sum() >= 0.95 * (seen.sum() + inside.sum())
