"""Export for other servers: an ONNX file that is checked against PyTorch, and a model repository for Triton."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from model import files
from model.errors import UserError, how_to_install
from model.network.normalisation import Normalised
from model.rewrites.folding import fold_batch_norm
from model.transforms import SIZE, Floats, Pixels
from model.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import onnxruntime

INPUT, OUTPUT = "pixels", "logits"
CHATTY = ("torch.onnx", "onnx_ir", "onnxscript")  # log each step, and that torchvision is not installed
TOLERANCE = 0.01  # largest accepted difference of a logit between PyTorch and ONNX Runtime, both in float32
CONFIG = """\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch_size}
input [ {{ name: "{input}" data_type: TYPE_UINT8 dims: [ 3, {size}, {size} ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ 1, {size}, {size} ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""
WARM_UP = """\
model_warmup [ {{
  name: "batch of {batch}" batch_size: {batch}
  inputs {{ key: "{input}" value: {{ data_type: TYPE_UINT8 dims: [ 3, {size}, {size} ] zero_data: true }} }}
}} ]
"""


class ExportError(UserError):
    """The export is not possible, or the exported file does not compute what PyTorch computes."""


def write_onnx(checkpoint: Checkpoint, path: Path) -> float:
    """Write an ONNX file that maps uint8 RGB (N, 3, 352, 352) to float32 logits of S3 (N, 1, 352, 352), for any N.

    Returns the largest difference of a logit between PyTorch and ONNX Runtime, over batches of 1 and 3.

    Raises:
        ExportError: an optional package is missing, or the file does not compute what PyTorch computes.

    """
    network = Normalised(fold_batch_norm(checkpoint.network())).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as draft:
        return _write_checked(network, draft)


def _write_checked(network: torch.nn.Module, path: Path) -> float:
    frames = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    try:
        import onnxruntime

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of deprecations in its own code
            for name in CHATTY:
                logging.getLogger(name).setLevel(logging.ERROR)
            torch.onnx.export(
                network,
                (frames,),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except ImportError as error:
        raise ExportError(f"{error}; exports need optional packages: {how_to_install('export')}") from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = [_difference(network, session, _noise(count)) for count in (1, 3)]
    if max(differences) > TOLERANCE:
        raise ExportError(f"a logit differs from PyTorch's by {max(differences):.3g}, so the file is not kept")
    return max(differences)


def write_triton(checkpoint: Checkpoint, repository: Path, name: str = "pranet", max_batch_size: int = 8) -> float:
    """Write a Triton model repository with dynamic batching and warm-up, and return the same as ``write_onnx``.

    Raises:
        ExportError: see ``write_onnx``.

    """
    model, description = (repository / each for each in triton_files(name))
    difference = write_onnx(checkpoint, model)
    facts = {"name": name, "max_batch_size": max_batch_size, "input": INPUT, "output": OUTPUT, "size": SIZE}
    config = CONFIG.format(**facts) + "".join(
        WARM_UP.format(batch=batch, **facts) for batch in sorted({1, max_batch_size})
    )
    files.write(description, config)
    return difference


def triton_files(name: str = "pranet") -> tuple[str, str]:
    """Return the files of a model in a repository for Triton: network and description, relative to the repository."""
    return f"{name}/1/model.onnx", f"{name}/config.pbtxt"


def _noise(count: int) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)


def _difference(network: torch.nn.Module, session: "onnxruntime.InferenceSession", frames: Pixels) -> float:
    with torch.inference_mode():
        expected: Floats = network(torch.from_numpy(frames)).numpy()
    return float(np.abs(session.run([OUTPUT], {INPUT: frames})[0] - expected).max())
