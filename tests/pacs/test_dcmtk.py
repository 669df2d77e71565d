"""dcmtk's ``storescu``, which proposes one transfer syntax, sends to ``pranet receive``."""

import asyncio
import shutil
from pathlib import Path

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from tests.support.dicom_objects import MASKS, PICTURES, dicom
from tests.support.patching import Patches
from tests.support.servers.dicom_node import receiving
from tests.support.servers.stow import stow
from tests.support.serving import until

# What storescu calls them.
PROPOSED = {
    "-xe": ExplicitVRLittleEndian,
    "-xy": JPEGBaseline8Bit,
    "-xv": JPEG2000Lossless,
    "-xt": JPEGLSLossless,
}


@pytest.mark.skipif(shutil.which("dcmsend") is None, reason="needs: apt-get install dcmtk")
@pytest.mark.parametrize(("flag", "syntax"), PROPOSED.items(), ids=[each.keyword for each in PROPOSED.values()])
async def test_storescu_sends_a_picture_in_its_transfer_syntax(
    flag: str, syntax: UID, tmp_path: Path, patched: Patches
) -> None:
    source = dicom(PICTURES[:1], syntax)
    source.save_as(tmp_path / "picture.dcm", enforce_file_format=True)
    with stow() as pacs:
        async with receiving(tmp_path / "spool", pacs.url, patched) as it:
            command = [dcmtk("storescu"), flag, "-aec", "PRANET", "127.0.0.1", str(it.port), tmp_path / "picture.dcm"]
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
            await until(lambda: bool(pacs.stored) and not it.waiting())
    (stored,) = pacs.stored
    assert stored.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (stored.pixel_array == MASKS[0]).mean() > 0.99


def dcmtk(name: str) -> Path:
    """Return one of dcmtk's programs; pynetdicom installs others of the same names into the virtual environment."""
    found = shutil.which("dcmsend")
    assert found is not None
    return Path(found).with_name(name)
