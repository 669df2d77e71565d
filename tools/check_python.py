"""Says in one line why a Python cannot make the environment, and what to do; any Python from 3.6 on can run it."""

import re
import sys
from os.path import abspath, dirname, join

PROJECT = join(dirname(dirname(abspath(__file__))), "pyproject.toml")
BOUNDS = r'^requires-python = ">=3\.(\d+),<3\.(\d+)"'


def fault(version, name):
    """Return what is wrong with this Python, or None; its home is ``requires-python``."""
    with open(PROJECT) as project:
        lowest, beyond = map(int, re.search(BOUNDS, project.read(), re.MULTILINE).groups())
    if not (3, lowest) <= version < (3, beyond):
        reason = ": PyTorch and OpenVINO have no packages for it yet" if version >= (3, beyond) else ""
        found = f"{name} is Python {version[0]}.{version[1]}{reason}"
        advice = f"name another: make PYTHON=python3.{lowest + 1}"
        return f"Python 3.{lowest} to 3.{beyond - 1} is needed, and {found}; {advice}"
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = f"python{version[0]}.{version[1]}-venv"
        return f"{name} has no venv with pip; on Debian and Ubuntu: apt-get install {package}"
    return None


if __name__ == "__main__":
    wrong = fault(sys.version_info[:2], sys.argv[1])
    if wrong:
        sys.exit("pranet: " + wrong)
