"""Short runs of ``pranet train`` in the process of the test."""

import argparse
import hashlib
from pathlib import Path

from model.training import command, flags

RECIPE = """
steps = 5
batch = 2
learning_rate = 1e-3
warmup_steps = 2
average = 0.9
clip_norm = 5.0
negatives = 0.2
candidates = 3
mined = 1
[[phases]]
start = 0
sizes = [64]
[[phases]]
start = 0.6
sizes = [64, 96]
[augmentation]
flip = 0.5
rotation = 180
paste = 0.3
"""


def train(arguments: list[str], out: Path, *more: str) -> str:
    """Train and return the digest of the weights."""
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    assert command.run(parser.parse_args([*arguments, "--out", str(out), *more])) == 0
    return digest(out)


def digest(out: Path) -> str:
    return hashlib.sha256((out / "last.safetensors").read_bytes()).hexdigest()
