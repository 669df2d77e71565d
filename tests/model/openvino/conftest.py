"""Fixtures for tests of the OpenVINO engine; it may not be installed, so they import it only when they are used."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from model import transforms
from model.engines import factory
from model.engines.predictor import Predictor
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint
from tests.support.pictures import ROOT, SAMPLES

if TYPE_CHECKING:
    import openvino as ov


@pytest.fixture(scope="module")
def weights() -> Checkpoint:
    return checkpoint.load(ROOT / "weights" / "pranet.safetensors")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.stack([transforms.to_input(Image.open(sample).convert("RGB")) for sample in SAMPLES])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def converted(weights: Checkpoint) -> "ov.Model":
    from model.engines.openvino.conversion import convert

    return convert(weights)


@pytest.fixture(scope="module")
def predictor(weights: Checkpoint, cache: Path) -> Predictor:
    return factory.create(weights, device="cpu", engine="openvino", precision="fp32", cache_dir=cache)
