"""``pranet stream rtsp://`` against a real RTSP server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from service.commands.video.demo import sweep
from tests.support.pictures import ROOT
from tests.support.processes import Server, pranet
from tests.support.serving import PATIENCE

pytestmark = pytest.mark.slow

SYSTEM_PYTHON = "/usr/bin/python3"  # the one for which distributions package GStreamer
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
ANSWERED = re.compile(
    r"frames (\d+)  answered (\d+)  stale (\d+)  deadline 0  overload 0  lost 0  failed 0  order kept"
)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Serve the synthetic sweep as H.264; yields the server and its address."""
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", PROBE], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no GStreamer RTSP server")
    for number, picture in enumerate(sweep()):
        (tmp_path / f"{number:04d}.jpg").write_bytes(picture)
    command = [SYSTEM_PYTHON, str(ROOT / "tests" / "support" / "servers" / "rtsp_server.py"), str(tmp_path)]
    with subprocess.Popen(command, text=True, stdout=PIPE) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_camera_on_the_network_is_followed(camera: tuple[object, str], server: Server, tmp_path: Path) -> None:
    _, address = camera
    masks = tmp_path / "masks"
    done = pranet("stream", address, "--seconds", 3, "--server", server.grpc_address, "--save-masks", masks)
    assert done.returncode == 0, done.stderr
    found = ANSWERED.search(done.stdout.splitlines()[-1])
    assert found
    frames, answered, stale = map(int, found.groups())
    assert frames == answered + stale
    assert len(list(masks.iterdir())) == answered > 0


def test_a_camera_that_goes_away_ends_the_stream_with_its_figures(
    camera: tuple["subprocess.Popen[str]", str], server: Server
) -> None:
    process, address = camera
    secret = address.replace("rtsp://", "rtsp://doctor:secret@")
    options = ["--seconds", "20", "--server", server.grpc_address]
    command = [sys.executable, "-m", "service.commands.main", "stream", secret, *options]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=PIPE, stderr=PIPE) as client:
        assert client.stdout
        while "answered 0 " in (line := client.stdout.readline()):
            assert line
        process.kill()
        out, err = client.communicate(timeout=3 * PATIENCE)
    assert "order kept" in out.splitlines()[-1]
    assert client.returncode != 0
    assert f"{address} " in err
    assert "connecting again" in err
    assert "check the address, the camera and the network" in err.splitlines()[-1]
    assert "secret" not in out + err
    assert "Traceback" not in err
