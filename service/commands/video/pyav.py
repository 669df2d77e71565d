"""PyAV, which only video needs, and what its errors say."""

from typing import Any

from model.errors import SourceError, how_to_install


def load_av() -> Any:
    """Import and return PyAV, which only video needs.

    Raises:
        SourceError: PyAV is not installed.

    """
    try:
        import av
    except ImportError as error:
        raise SourceError(f"video needs PyAV: {how_to_install('video')}") from error
    return av


def reason(error: Exception) -> str:
    """Return what FFmpeg says about an error, without the address, which may hold a password."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
