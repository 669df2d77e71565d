"""The OpenVINO graph of a weights file: converted once, and cached on disk for the next start.

A start that finds the graph in the cache, by the hash of the weights file, needs neither the weights nor PyTorch.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import time
from pathlib import Path

import openvino as ov

from model.engines.openvino import bfloat16 as openvino_bfloat16
from model.engines.openvino import int8 as openvino_int8
from model.transforms import SIZE
from model.weights.weights_file import WeightsFile

FORMAT = 6  # increase it whenever a change converts the same weights to another graph
FILE, WEIGHTS = "graph.xml", "graph.bin"
SEAL = "graph.sha256"
ABANDONED_SECONDS = 3600.0
INT8 = "-int8-"  # in a name, before the digest of the calibration
MOST_CALIBRATIONS = 2  # graphs of the same weights in int8; others were made with calibrations that were replaced

# The one runtime of this process, which is never freed. OpenVINO 2026.4 gives the thread that first uses it a stack for
# signal handlers, and frees this stack in whatever thread frees the runtime. If that is another one, the next signal in
# the first thread ends the process with SIGSEGV.
RUNTIME = ov.Core()

log = logging.getLogger(__name__)


def graph(weights: WeightsFile, precision: str, cache_dir: Path | None, input_size: int = SIZE) -> ov.Model:
    """Return the graph of a weights file, from the cache if possible; a failing cache only logs a warning.

    Raises:
        CheckpointError: the graph is not in the cache, and the weights file cannot be used.
        DeviceError: ``precision`` is int8, and there is no calibration for these weights.

    """
    calibration = openvino_int8.load(weights) if precision == "int8" else None
    name = f"openvino-{weights.sha256[:16]}-{FORMAT}-{ov.__version__.split('-')[0]}"
    if input_size != SIZE:
        name += f"-{input_size}"
    if calibration is not None:
        name += f"{INT8}{calibration.digest}"
    kept = None if cache_dir is None else cache_dir / name
    if kept is not None:
        try:
            if kept.exists():
                return _read(kept)
        except (OSError, RuntimeError) as error:
            log.warning("the cached graph %s cannot be read, so it is converted again: %s", kept, str(error)[:200])
    from model.engines.openvino.conversion import convert  # here, because it imports PyTorch, which takes seconds

    made = convert(weights, input_size)
    if calibration is not None:
        openvino_int8.quantise(made, calibration)
    openvino_bfloat16.take_scales_out(made)
    openvino_bfloat16.split_end_of_decoder(made)
    if kept is not None:
        try:
            _keep(made, kept)
        except (OSError, RuntimeError) as error:
            log.warning(
                "the graph cannot be cached (%s), so every start converts it again; set PRANET_CACHE_DIR to a folder "
                "that can be written and has room",
                str(error)[:200],
            )
    return made


def _read(kept: Path) -> ov.Model:
    if (kept / SEAL).read_bytes() != _digest(kept):
        raise OSError("its files have changed since they were written")
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(kept)  # as the one that was used last
    return RUNTIME.read_model(kept / FILE)


def _keep(made: ov.Model, kept: Path) -> None:
    """Write the graph atomically: other processes see all of it or nothing."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(kept)
    making = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}")
    making.mkdir()
    try:
        _save(made, making / FILE)
        (making / SEAL).write_bytes(_digest(making))
        if not _is_whole(kept):
            _remove(kept)
            os.replace(making, kept)
            _remove_replaced(kept)
    except OSError:
        if not _is_whole(kept):  # it is if another process has made it meanwhile
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _save(made: ov.Model, path: Path) -> None:
    try:
        ov.save_model(made, path, compress_to_fp16=False)
    except RuntimeError:  # it does not say why; if the disk is full, the next call does
        constants = (each for each in made.get_ops() if each.get_type_name() == "Constant")
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, sum(each.data.nbytes for each in constants))
        raise


def _is_whole(kept: Path) -> bool:
    try:
        return (kept / SEAL).read_bytes() == _digest(kept)
    except OSError:
        return False


def _remove_abandoned(kept: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    for left in kept.parent.glob(f"{kept.name}.????????"):
        with contextlib.suppress(OSError):  # another process removes it, too
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)


def _remove_replaced(kept: Path) -> None:
    """Remove graphs of other calibrations of the same weights, but those that were used last.

    A process that reads one of them meanwhile converts it again, or has it open until its own end.
    """
    begin, is_int8, digest = kept.name.rpartition(INT8)
    if not is_int8:
        return
    others = [each for each in kept.parent.glob(f"{begin}{INT8}{'?' * len(digest)}") if each != kept]
    with contextlib.suppress(OSError):  # another process removes them, too
        for old in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)[MOST_CALIBRATIONS - 1 :]:
            removed = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}")  # nobody sees a part of it
            os.replace(old, removed)
            shutil.rmtree(removed)


def _digest(folder: Path) -> bytes:
    """Return the SHA-256 of both files, separated by a space; takes about 0.1 s."""
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
