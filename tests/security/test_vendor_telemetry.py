"""Nothing that the service uses reports to anybody."""

import subprocess
import sys

from tests.support.pictures import ROOT


def test_the_engine_cannot_report_conversions_to_its_vendor() -> None:
    code = "import model.engines.openvino.graph, openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("telemetry_stub")


def test_the_vendors_telemetry_is_not_even_installed() -> None:
    for pinned in (ROOT / "requirements").glob("*.txt"):
        assert "telemetry" not in pinned.read_text().replace("opentelemetry", "")
