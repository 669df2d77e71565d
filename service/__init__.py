"""The PraNet service: REST and gRPC over one batched data path."""

import os
from importlib.metadata import version
from pathlib import Path

__version__ = version("pranet-service")

# Without this, which the import of grpc reads, each client that speaks no TLS would add a line that is not of our log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# PyTorch's threads (libgomp) spin for milliseconds while they wait for each other, on cores that others need. Beside
# two busy processes on two cores, PraNet then takes 0.9 s a frame; with this, 0.4 s. Alone, it takes 0.13 to 0.25 s.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"

SAMPLES = Path(__file__).parent / "samples"  # bundled frames of Kvasir-SEG, for examples and tests
