"""Orthanc, an open PACS, with its DICOMweb plugin, as Debian ships them."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.predictors import PATIENCE

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
INSTALLED = PROGRAM is not None and PLUGIN.exists()
USER = ("pranet", "secret")


@contextlib.contextmanager
def orthanc(folder: Path, port: int) -> Iterator[httpx.Client]:
    """Run a PACS that keeps what it has in a folder; yield a client of its DICOMweb interface."""
    configuration = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": dict([USER]),
        "Plugins": [str(PLUGIN)],
    }
    folder.mkdir(exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    url = f"http://127.0.0.1:{port}/dicom-web"
    with (
        (folder / "orthanc.log").open("w") as log,
        subprocess.Popen([str(PROGRAM), folder / "orthanc.json"], stdout=log, stderr=log) as process,
        httpx.Client(base_url=url, auth=USER, trust_env=False) as client,
    ):
        try:
            _until_it_answers(client)
            yield client
        finally:
            process.terminate()


def _until_it_answers(client: httpx.Client) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            client.get("/studies").raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
