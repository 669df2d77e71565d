"""Checks for the optional packages behind DICOM, which are imported for the first object."""

import importlib.util

from model.errors import how_to_install
from service.errors import UnsupportedImage

MEDIA_TYPE = "application/dicom"
PACKAGES = ("pydicom", "highdicom")


def require() -> None:
    """Check that the extra ``dicom`` is installed.

    Raises:
        UnsupportedImage: a package is missing.

    """
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        raise UnsupportedImage(f"DICOM support is not installed; the operator can add it: {how_to_install('dicom')}")
