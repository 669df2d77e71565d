"""The network agrees with the published implementation; ``pytest -s tests/model/test_parity.py`` prints by how much."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model.engines.torch.predictor import TorchPredictor
from model.network.pranet import PraNet
from model.transforms import MEAN, STD, to_input
from model.weights.checkpoint import Checkpoint
from tests.support import reference
from tests.support.pictures import Mask, dice, mask_of
from tests.support.serving import serving

TOLERANCE = 1e-4  # of a logit
STRIDE = 8  # at which the expected maps are kept
FRAME = reference.PARITY / "frame.jpg"


@pytest.fixture(scope="module")
def weights() -> Checkpoint:
    return reference.checkpoint()


@pytest.fixture(scope="module")
def network(weights: Checkpoint) -> PraNet:
    return weights.network()


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(reference.PARITY / "expected.npz") as arrays:
        return dict(arrays)


def test_the_network_has_the_parameters_of_the_published_one() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in PraNet().state_dict().items()}
    published = reference.published_shapes()
    assert {name: shape for name, shape in published.items() if not name.startswith("resnet.fc.")} == shapes


@pytest.mark.parametrize("source", ["image", "random"])
def test_all_four_maps_agree_in_float32(network: PraNet, expected: dict[str, np.ndarray], source: str) -> None:
    with torch.inference_mode():
        maps = network.maps(_image() if source == "image" else _random())._asdict()
    for name, logits in maps.items():
        difference = np.abs(logits[:, 0, ::STRIDE, ::STRIDE].numpy() - expected[f"{source}_{name}"]).max()
        print(f"\n{source} {tuple(logits.shape)} {name}: largest difference {difference:.1e}", end="")
        assert difference <= TOLERANCE


@pytest.mark.parametrize(
    ("precision", "least"), [("fp32", 0.999), ("fp16", 0.99), pytest.param("bf16", 0.99, marks=pytest.mark.long)]
)
async def test_a_jpeg_is_answered_with_the_published_mask(
    weights: Checkpoint, expected: dict[str, np.ndarray], precision: str, least: float
) -> None:
    predictor = TorchPredictor(weights, precision)  # half precision too, as a GPU computes it
    async with serving(predictor, max_batch_size=1) as running:
        answer = await running.rest.post("/segment", content=FRAME.read_bytes())
    overlap = dice(mask_of(answer.content), _published_mask(expected))
    print(f"\n{precision}: Dice with the published mask {overlap:.5f}", end="")
    assert overlap >= least


def _image() -> Tensor:
    pixels = to_input(Image.open(FRAME)).astype(np.float64) / 255
    mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
    return torch.from_numpy(((pixels - mean) / std)[None].astype(np.float32))


def _random() -> Tensor:
    return torch.randn(2, 3, 256, 320, generator=torch.Generator().manual_seed(7))


def _published_mask(expected: dict[str, np.ndarray]) -> Mask:
    height, width = expected["mask_shape"]
    return np.unpackbits(expected["mask"], count=height * width).reshape(height, width).astype(bool)
