"""bfloat16 on a CPU: what would be lost of pixels and weights is kept, in every graph."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import cores, transforms
from model.engines import factory
from model.network.normalisation import Centred
from model.network.pranet import PraNet
from model.rewrites.folding import fold_batch_norm
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint
from tests.support.patching import Patches
from tests.support.pictures import ROOT

pytest.importorskip("openvino", reason="OpenVINO is not installed on this processor")
import openvino as ov
from openvino import opset13 as opset

from model.engines.openvino import bfloat16 as openvino_bfloat16
from model.engines.openvino import graph as openvino_graph

WHOLE = {
    "conv1.3",
    "conv1.6",
    *(f"layer1.0.{c}" for c in ("conv1", "last", "convs")),
    *(f"layer1.{b}.{c}" for b in (1, 2) for c in ("conv1", "convs.0", "convs.1", "convs.2")),
}


@pytest.fixture(scope="module")
def graph(weights: Checkpoint) -> ov.Model:
    return openvino_graph.graph(weights, "bf16", None)


def held(values: np.ndarray) -> np.ndarray:
    """Round to bfloat16."""
    return torch.from_numpy(values.copy()).bfloat16().float().numpy()


def weight(operation: ov.Node) -> np.ndarray:
    return operation.input(1).get_source_output().get_node().get_data()


def test_what_is_taken_from_pixels_leaves_whole_numbers_that_bfloat16_holds(weights: Checkpoint) -> None:
    levels = torch.arange(256).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    centred = levels - Centred(fold_batch_norm(weights.network())).centre
    assert torch.equal(centred, centred.bfloat16().float())


def test_weights_of_the_stem_and_the_first_stage_are_whole_numbers_that_bfloat16_holds(graph: ov.Model) -> None:
    convolutions = [each for each in graph.get_ops() if each.get_type_name() in openvino_bfloat16.KINDS]
    large = {each.get_friendly_name(): weight(each) for each in convolutions if np.abs(weight(each)).max() > 1}
    found = {name: values for name, values in large.items() if np.allclose(values, np.rint(values), atol=1e-4)}
    assert all(np.array_equal(held(values), np.rint(values)) for values in found.values())
    assert {name.split("/")[0].partition("resnet.")[2] for name in found} == WHOLE


def test_their_scales_are_multiplied_in_within_the_same_operation(graph: ov.Model) -> None:
    """OpenVINO would move them back into the weights if it could."""
    compiled = ov.Core().compile_model(graph, "CPU")
    info = [each.get_rt_info() for each in compiled.get_runtime_model().get_ops()]
    made_of = [
        facts["originalLayersNames"].astype(str) for facts in info if facts["layerType"].astype(str) == "Convolution"
    ]
    scaled = {names.split("/")[0].partition("resnet.")[2] for names in made_of if ",Multiply_" in names}
    assert scaled == WHOLE


@pytest.mark.parametrize("part", ["shallow", "middle"])
def test_what_bfloat16_loses_of_the_decoders_last_weights_is_added(
    converted: ov.Model, graph: ov.Model, part: str
) -> None:
    def find(graph: ov.Model) -> ov.Node:
        (found,) = (
            each
            for each in graph.get_ops()
            if f"agg1.{part}/aten::_conv" in each.get_friendly_name() and each.get_type_name() == "Convolution"
        )
        return found

    exact, most = weight(find(converted)), find(graph)
    (total,) = most.output(0).get_target_inputs()
    rest = total.get_node().input_value(1 - total.get_index()).get_node()
    assert np.array_equal(held(weight(most)), weight(most))
    assert np.abs(weight(most) + held(weight(rest)) - exact).max() < np.abs(held(exact) - exact).max() / 100


def test_a_sum_that_is_no_bias_is_left_as_it_is(patched: Patches) -> None:
    """OpenVINO leaves out a bias of zeros, as networks have at first; then the sum with the shortcut comes next."""
    patched(openvino_bfloat16, "WHOLE", ".*")
    ones = np.ones((2, 2, 1, 1), np.float32)
    for biased in (lambda convolution, pixels: opset.add(convolution, pixels), lambda convolution, _: convolution):
        pixels = opset.parameter([1, 2, 6, 6])
        convolution = opset.convolution(pixels, opset.constant(ones), [1, 1], [0, 0], [0, 0], [1, 1])
        graph = ov.Model([opset.relu(biased(convolution, pixels))], [pixels])
        openvino_bfloat16.take_scales_out(graph)
        assert "Multiply" not in {each.get_type_name() for each in graph.get_ops()}


@pytest.mark.long
@pytest.mark.slow
def test_random_weights_are_served_as_pytorch_computes_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(PraNet().state_dict(), tmp_path / "random.pth")
    random = checkpoint.load(tmp_path / "random.pth")
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, 352, 352), dtype=np.uint8)
    expected, found = (
        factory.create(random, device="cpu", engine=each, precision="fp32", cache_dir=None).predict(frames)
        for each in ("torch", "openvino")
    )
    assert np.allclose(found, expected, atol=0.01)


def test_a_scale_is_taken_out_of_any_weights(patched: Patches) -> None:
    patched(openvino_bfloat16, "WHOLE", ".*")
    drawn = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    weight = drawn * np.array([1, 0, 1e-38, 0], np.float32).reshape(4, 1, 1, 1)
    bias = np.array([0.5, 0, 0.25, 2], np.float32).reshape(1, 4, 1, 1)
    pixels = opset.parameter([1, 2, 6, 6])
    convolution = opset.convolution(pixels, opset.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1])
    graph = ov.Model([opset.relu(opset.add(convolution, opset.constant(bias)))], [pixels])
    x = np.random.default_rng(1).normal(size=(1, 2, 6, 6)).astype(np.float32)

    def computed() -> np.ndarray:
        return ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]

    expected = computed()
    openvino_bfloat16.take_scales_out(graph)
    assert "Multiply" in {each.get_type_name() for each in graph.get_ops()}
    assert np.allclose(computed(), expected, atol=1e-5)


@pytest.mark.skipif(not cores.computes_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_finds_the_same_polyps_as_float32(weights: Checkpoint, tmp_path: Path) -> None:
    samples = sorted((ROOT / "service" / "samples").glob("*.jpg"))
    frames = np.stack([transforms.to_input(Image.open(sample).convert("RGB")) for sample in samples])
    exact, found = (
        factory.create(weights, device="cpu", engine="openvino", precision=precision, cache_dir=tmp_path).predict(
            frames
        )
        > 0
        for precision in ("fp32", "bf16")
    )
    assert 2 * (exact & found).sum() / (exact.sum() + found.sum()) > 0.99
