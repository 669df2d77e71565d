"""The command ``pranet`` of another checkout of this repository, in this environment, beside whose package it runs."""

import sys
import tomllib
from pathlib import Path


def program(checkout: Path) -> tuple[str, ...]:
    """Return what runs ``pranet`` of a checkout; its arguments follow."""
    script = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["scripts"]["pranet"]
    module, function = script.split(":")
    paths = [str(checkout), str(checkout / "client")]
    start = f"import sys; sys.path[:0] = {paths!r}; import {module}; sys.exit({module}.{function}())"
    return sys.executable, "-c", start
