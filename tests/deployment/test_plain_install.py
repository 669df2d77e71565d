"""The extras stay extras: what serves imports none of them."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

from tests.support.pictures import ROOT

IMPORTS = """
import json, sys
import service.app
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_server_imports_no_extra() -> None:
    extras = {
        re.split(r"[^\w.-]", requirement)[0].lower()
        for requirement in requires("pranet-service") or ()
        if "extra ==" in requirement and not re.search("extra == .dev", requirement)
    }
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    distributions = packages_distributions()
    owners = {module: {name.lower() for name in distributions.get(module, ())} for module in json.loads(done.stdout)}
    assert {"fastapi", "grpc", "uvicorn"} <= owners.keys()
    assert "torch" not in owners  # seconds of a start; OpenVINO does without once its graph is cached
    assert {"av", "highdicom", "matplotlib", "pydicom", "ray"} <= extras
    assert {module for module, names in owners.items() if names and names <= extras} == set()
