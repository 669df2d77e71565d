"""The network as it is served: batch-norm folded, any precision, any batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from model import transforms
from model.engines import factory
from model.engines.cuda.predictor import split_when_out_of_memory
from model.engines.predictor import DeviceError
from model.network.pranet import PraNet
from model.rewrites.decoder_folding import fold_end_of_decoder
from model.rewrites.folding import fold_batch_norm
from model.rewrites.scale_grouping import group_scales
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint
from tests.support.patching import Patches
from tests.support.pictures import ROOT


@pytest.fixture(scope="module")
def weights() -> Checkpoint:
    return checkpoint.load(ROOT / "weights" / "pranet.safetensors")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    samples = sorted((ROOT / "service" / "samples").glob("*.jpg"))[:2]
    return np.stack([transforms.to_input(Image.open(sample)) for sample in samples])


def test_folding_leaves_no_batch_norm_and_changes_nothing(weights: Checkpoint) -> None:
    x = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = weights.network()(x)
        folded = fold_batch_norm(weights.network())
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
        assert torch.allclose(folded(x), expected, atol=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (352, 352)])
def test_the_end_of_the_decoder_folds_into_two_convolutions_and_the_prediction_stays(
    weights: Checkpoint, size: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    folded = fold_batch_norm(weights.network())
    with torch.inference_mode():
        expected = folded.double()(x)
        found = fold_end_of_decoder(folded.float(), *size).double()(x)
    assert sum(isinstance(each, torch.nn.Conv2d) for each in folded.agg1.modules()) == 7  # of nine
    assert torch.allclose(found, expected, atol=1e-5)


def test_grouped_scales_compute_the_same(weights: Checkpoint) -> None:
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    folded = fold_batch_norm(weights.network())
    with torch.inference_mode():
        expected = folded.double()(x)
        found = group_scales(folded)(x)
    assert [conv.groups for conv in folded.modules() if isinstance(conv, torch.nn.Conv2d) and conv.groups > 1] == [3, 3]
    assert torch.allclose(found, expected, atol=1e-9)


def test_serving_computes_the_last_of_the_four_maps() -> None:
    network = PraNet().eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        maps = network.maps(x)
        assert all(each.shape == (2, 1, 64, 96) for each in maps)
        assert torch.equal(network(x), maps.s3)


def test_a_frame_gives_the_same_mask_in_every_batch(weights: Checkpoint, frames: np.ndarray) -> None:
    predictor = factory.create(weights, device="cpu", engine="torch")
    batch = predictor.predict(frames)
    assert (batch.shape, batch.dtype) == ((len(frames), 352, 352), np.float32)
    for frame, expected in zip(frames, batch, strict=True):
        assert ((predictor.predict(frame[None])[0] > 0) == (expected > 0)).mean() > 0.999


def test_pytorch_computes_in_float32_on_a_cpu(weights: Checkpoint) -> None:
    assert factory.create(weights, device="cpu", engine="torch").model.precision == "fp32"
    with pytest.raises(DeviceError, match="bf16 on a CPU needs the engine openvino; use --precision fp32 with torch"):
        factory.create(weights, device="cpu", engine="torch", precision="bf16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_an_error_and_never_a_silent_fallback(weights: Checkpoint) -> None:
    with pytest.raises(DeviceError, match="use --device auto or cpu"):
        factory.create(weights, device="cuda")
    assert factory.resolve_device("auto") == "cpu"


def test_a_gpu_that_this_pytorch_has_no_kernels_for_is_not_chosen(patched: Patches) -> None:
    patched(factory, "_gpus", lambda: 2)
    patched(factory, "_computes", lambda index: index == 1)
    assert factory.resolve_device("auto") == "cuda:1"
    assert factory.resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(DeviceError, match="cannot compute on cuda:0"):
        factory.resolve_device("cuda:0")
    patched(factory, "_computes", lambda index: False)
    assert factory.resolve_device("auto") == "cpu"


def test_bfloat16_is_refused_on_a_gpu_without_it(patched: Patches) -> None:
    patched(factory, "_generation", lambda device: 7)
    with pytest.raises(DeviceError, match="use --precision fp16"):
        factory.resolve_precision("cuda:0", "torch", "bf16")


def test_half_precision_on_a_cpu_is_refused_with_the_alternatives(weights: Checkpoint) -> None:
    with pytest.raises(DeviceError, match="bf16 or fp32"):
        factory.create(weights, device="cpu", precision="fp16")


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    sizes: list[int] = []

    def predict(frames: np.ndarray) -> np.ndarray:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise torch.cuda.OutOfMemoryError("no memory")
        return frames[:, 0, 0, 0].astype(np.float32)

    frames = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    assert split_when_out_of_memory(predict, frames).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert max(sizes[1:]) < 7


def test_a_single_frame_that_does_not_fit_is_an_error() -> None:
    def predict(frames: np.ndarray) -> np.ndarray:
        raise torch.cuda.OutOfMemoryError("no memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        split_when_out_of_memory(predict, np.zeros((2, 3, 1, 1), np.uint8))
