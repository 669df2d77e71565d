"""The optional packages behind DICOM, imported when the first object comes."""

import importlib.util

from service.errors import UnsupportedImage

MEDIA_TYPE = "application/dicom"
PACKAGES = ("pydicom", "highdicom")


def require() -> None:
    """Refuse DICOM where its packages are missing.

    Raises:
        UnsupportedImage: the extra is not installed.

    """
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        raise UnsupportedImage(
            "the service has no extra for DICOM; its operator can: pip install 'pranet-service[dicom]'"
        )
