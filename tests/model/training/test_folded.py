import copy

import numpy as np
import pytest
import torch
from torch import nn

from model.network.pranet import PraNet
from model.training import loop
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import Pair
from model.training.folded import folded
from model.training.recipe import Recipe, parse
from model.weights import checkpoint
from tests.support.pictures import ROOT

PLAIN = {"batch": 2, "learning_rate": 1e-3, "steps": 1, "phases": [{"start": 0, "sizes": [64]}]}


@pytest.fixture
def network() -> PraNet:
    """Return the shipped network as it is trained with frozen statistics, in double precision."""
    network = checkpoint.load(ROOT / "weights/pranet.safetensors").network().double().train().requires_grad_(True)
    loop.freeze(network, _recipe(frozen_statistics=True))
    return network


def test_the_folded_network_has_the_same_logits_and_gradients(network):
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = []
    for computed in (network, folded(network)):
        network.zero_grad()
        sum(logits.sigmoid().sum() for logits in computed.maps(x)).backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    assert torch.allclose(folded(network)(x), network(x), atol=1e-9)
    for name, plain in gradients[0].items():
        assert plain.abs().max() > 0, name
        assert torch.allclose(gradients[1][name], plain, rtol=1e-6, atol=1e-9 * plain.abs().max()), name


def test_the_folded_network_follows_weights_that_are_loaded_or_trained_later(network):
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twin = folded(network)
    before = twin(x)
    other = {name: value * 1.01 for name, value in network.state_dict().items()}
    network.load_state_dict(other)
    assert not torch.allclose(twin(x), before, atol=1e-3)
    assert torch.allclose(twin(x), network(x), atol=1e-9)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_computes_on_pictures_only_where_it_learns_from_them(tmp_path, frozen):
    network = PraNet()
    pair = Pair(np.full((64, 64, 3), 90, np.uint8), np.eye(64, dtype=np.uint8))
    recipe = _recipe(frozen_statistics=frozen)
    trainer = loop.Trainer(recipe, network, Batches([Pool([pair])], recipe), torch.device("cpu"), tmp_path)
    ran = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda norm, _, __: ran.append(norm))
    before = copy.deepcopy(network.state_dict())
    trainer.step(*trainer.batches[0, 64])
    assert bool(ran) is not frozen
    assert (network.resnet.bn1.weight != before["resnet.bn1.weight"]).any()


def _recipe(**values: bool) -> Recipe:
    return parse("folded", PLAIN | values)
