"""``pranet label-studio`` as a process: what it prints, refuses and logs."""

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.pictures import ROOT
from tests.support.processes import PROGRAM, STOP_SECONDS, pranet

READY = re.compile(r"ready: (http://127\.0\.0\.1:\d+)")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    return file


@pytest.mark.slow
def test_it_serves_until_it_is_stopped(token: Path, tmp_path: Path) -> None:
    (tmp_path / "login").write_text("label:studio\n")
    command = [*PROGRAM, "label-studio", "--port", "0", "--label-studio-token-file", token]
    command += ["--login-file", tmp_path / "login", "--server", "http://127.0.0.1:1"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            found = READY.search(process.stdout.readline())
            assert found
            with httpx.Client(base_url=found[1], trust_env=False) as asking:
                assert asking.get("/health").status_code == 401
                assert asking.get("/health", auth=("label", "studio")).json()["status"] == "UP"
                assert asking.get("/versions", auth=("label", "studio")).status_code == 503
        finally:
            process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "/versions: unreachable: no service answers at http://127.0.0.1:1" in logged
    assert "Traceback" not in logged
    assert "0123456789abcdef" not in logged


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--label-studio-token-file", "missing"), "--label-studio-token-file missing cannot be read"),
        (("--label-studio-token-file", "/dev/null"), "--label-studio-token-file /dev/null holds no secret"),
        (("--label-studio-url", "labels:8080"), "--label-studio-url labels:8080 is not an address"),
        (("--server", "127.0.0.1:8000"), "--server 127.0.0.1:8000 is not an address"),
        (("--host", "198.51.100.1"), "port 9090 of 198.51.100.1 cannot be opened"),
        (("--ca-file", "missing", "--port", "0"), "missing"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(token: Path, arguments: tuple[str, ...], reason: str) -> None:
    done = pranet("label-studio", "--label-studio-token-file", token, *arguments)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert len(lines) == 1
    assert reason in lines[0]
