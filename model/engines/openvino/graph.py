"""PraNet as an OpenVINO graph: made of the weights once, and kept on the disk for the next start.

A start that finds the graph of its weights' very bytes on the disk needs neither them nor PyTorch.
"""

import hashlib
import logging
import os
import secrets
import shutil
from pathlib import Path

import openvino as ov

from model.engines.openvino import bfloat16 as openvino_bfloat16
from model.engines.openvino import int8 as openvino_int8
from model.weights.weights_file import WeightsFile

FORMAT = 5  # raise it when the same weights would be converted to another graph
FILE, WEIGHTS = "graph.xml", "graph.bin"
SEAL = "graph.sha256"

log = logging.getLogger(__name__)


def graph(weights: WeightsFile, precision: str, cache_dir: Path | None) -> ov.Model:
    """Return the graph of weights, from the cache where it is there; a cache that fails is only a warning.

    Raises:
        CheckpointError: the weights are not in the cache, and cannot be used.
        DeviceError: ``precision`` is int8, and there is no calibration for these weights.

    """
    calibration = openvino_int8.load(weights) if precision == "int8" else None
    name = f"openvino-{weights.sha256[:16]}-{FORMAT}-{ov.__version__.split('-')[0]}"
    if calibration is not None:
        name += f"-int8-{calibration.digest}"
    kept = None if cache_dir is None else cache_dir / name
    if kept is not None:
        try:
            if kept.exists():
                return _read(kept)
        except (OSError, RuntimeError) as error:
            log.warning("the cached graph %s cannot be read and is made anew: %s", kept, str(error)[:200])
    from model.engines.openvino.conversion import convert  # takes seconds: it brings PyTorch in

    made = convert(weights)
    if calibration is None:
        openvino_bfloat16.take_scales_out(made)
    else:
        openvino_int8.quantise(made, calibration)
    openvino_bfloat16.split_end_of_decoder(made)
    if kept is not None:
        try:
            _keep(made, kept)
        except (OSError, RuntimeError) as error:
            log.warning("the graph cannot be cached, so every start makes it again (CACHE_DIR): %s", str(error)[:200])
    return made


def _read(kept: Path) -> ov.Model:
    if (kept / SEAL).read_bytes() != _digest(kept):
        raise OSError("its files have changed since they were written")
    return ov.Core().read_model(kept / FILE)


def _keep(made: ov.Model, kept: Path) -> None:
    """Write the graph so that other processes, of other users too, see it whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    making = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}")
    making.mkdir()
    try:
        ov.save_model(made, making / FILE, compress_to_fp16=False)
        (making / SEAL).write_bytes(_digest(making))
        _remove(kept)  # a damaged one
        os.replace(making, kept)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _digest(folder: Path) -> bytes:
    """Return the SHA-256 of both files, one after the other; a tenth of a second."""
    digests = []
    for name in (FILE, WEIGHTS):
        with (folder / name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(digests).encode()


def _remove(kept: Path) -> None:
    if kept.is_dir():
        shutil.rmtree(kept)
    else:
        kept.unlink(missing_ok=True)
