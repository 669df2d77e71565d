"""The PraNet service: REST and gRPC over one batched data path."""

from importlib.metadata import version
from pathlib import Path

__version__ = version("pranet-service")

SAMPLES = Path(__file__).parent / "samples"  # bundled frames of Kvasir-SEG, for examples and tests
