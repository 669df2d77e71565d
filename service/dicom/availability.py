"""Checks for the optional packages behind DICOM, which are imported for the first object."""

import importlib.util
import sys

from model.errors import how_to_install
from service.errors import UnsupportedImage

MEDIA_TYPE = "application/dicom"
PACKAGES = ("pydicom", "highdicom")
TOO_NEW = (3, 14)  # the first Python for which pyjpegls, which highdicom needs, has no wheel; see pyproject.toml


def require() -> None:
    """Check that the extra ``dicom`` is installed.

    Raises:
        UnsupportedImage: a package is missing.

    """
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        advice = f"the operator can add it: {how_to_install('dicom')}"
        if sys.version_info >= TOO_NEW:
            advice = "it needs Python 3.13 or earlier, because pyjpegls has no package for later ones"
        raise UnsupportedImage(f"DICOM support is not installed; {advice}")
