"""PraNet as an OpenVINO graph: converted from the loaded PyTorch module, and kept on disk for the next start.

The graph takes one frame, uint8 (1, 3, 352, 352), and normalises it itself; more frames at once are more requests
at once, because convolutions of this size fill a processor core with a single frame.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import openvino as ov
import torch

from model import openvino_int8
from model.checkpoint import Checkpoint
from model.folding import fold_batch_norm
from model.pranet import STRIDE
from model.predictor import Normalised
from model.transforms import SIZE

FORMAT = 1  # raise it when the same weights would be converted to another graph
FILE = "graph.xml"

log = logging.getLogger(__name__)


def graph(checkpoint: Checkpoint, precision: str, cache_dir: Path | None) -> ov.Model:
    """Return the graph of a checkpoint, from the cache where it is there; a cache that fails is only a warning.

    Raises:
        DeviceError: ``precision`` is int8, and there is no calibration for these weights.

    """
    calibration = openvino_int8.load(checkpoint) if precision == "int8" else None
    name = f"openvino-{checkpoint.sha256[:16]}-{FORMAT}-{ov.__version__.split('-')[0]}"
    if calibration is not None:
        name += f"-int8-{calibration.digest}"
    kept = None if cache_dir is None else cache_dir / name
    if kept is not None and (kept / FILE).exists():
        try:
            return ov.Core().read_model(kept / FILE)
        except RuntimeError as error:
            log.warning("the cached graph %s cannot be read and is made anew: %s", kept, str(error)[:200])
    made = convert(checkpoint)
    if calibration is not None:
        openvino_int8.quantise(made, calibration)
    if kept is not None:
        try:
            _keep(made, kept)
        except (OSError, RuntimeError) as error:
            log.warning("the graph cannot be cached, so every start makes it again (CACHE_DIR): %s", str(error)[:200])
    return made


def convert(checkpoint: Checkpoint) -> ov.Model:
    """Convert a checkpoint: uint8 RGB (1, 3, 352, 352) to float32 logits of S3 (1, 1, 352, 352)."""
    network = Normalised(fold_batch_norm(checkpoint.network()))
    example = torch.zeros(1, 3, 2 * STRIDE, 2 * STRIDE, dtype=torch.uint8)  # the graph holds for any size: trace small
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO reads traces fastest; PyTorch 2.13 wants torch.export instead
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        return ov.convert_model(traced, example_input=example, input=[ov.PartialShape([1, 3, SIZE, SIZE])])


def _keep(made: ov.Model, kept: Path) -> None:
    """Write the graph so that other processes see it whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=kept.parent, prefix=kept.name))
    try:
        ov.save_model(made, making / FILE, compress_to_fp16=False)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(kept)  # a damaged one
        os.replace(making, kept)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
