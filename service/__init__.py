"""The PraNet service: REST and gRPC over one batched data path."""

import os
from importlib.metadata import version
from pathlib import Path

__version__ = version("pranet-service")

# Without this, which the import of grpc reads, each client that speaks no TLS would add a line that is not of our log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

SAMPLES = Path(__file__).parent / "samples"  # bundled frames of Kvasir-SEG, for examples and tests
