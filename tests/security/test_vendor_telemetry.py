"""Nothing that the service uses reports to anybody."""

import os
import subprocess
import sys

import pytest

import model
from tests.support.pictures import ROOT
from tests.support.servers.name_server import names_asked, namespaces

in_own_network = pytest.mark.skipif(not namespaces(), reason="this machine lets nobody make a network of their own")


def test_the_engine_cannot_report_conversions_to_its_vendor() -> None:
    code = "import model.engines.openvino.graph, openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("telemetry_stub")


def test_the_vendors_telemetry_is_not_even_installed() -> None:
    for pinned in (ROOT / "requirements").glob("*.txt"):
        assert "telemetry" not in pinned.read_text().replace("opentelemetry", "")


def test_whoever_imports_the_network_turns_off_the_reports_of_onnx_runtime() -> None:
    """Also these tests, and a notebook."""
    assert model.__file__
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@in_own_network
def test_names_that_a_command_looks_up_are_seen() -> None:
    look_up = "import contextlib, socket\nwith contextlib.suppress(OSError): socket.getaddrinfo('pranet.example', 80)"
    assert set(names_asked([sys.executable, "-c", look_up])) == {"pranet.example"}
