"""Which engine, device and precision a service runs on.

PyTorch is imported where it is needed only: OpenVINO, started from its cache, does without, which saves seconds.
"""

import ctypes
import importlib.util
import platform
import re
from pathlib import Path

from model.cores import computes_bfloat16
from model.engines.predictor import DeviceError, Predictor
from model.weights.weights_file import WeightsFile

ENGINES = ("torch", "openvino")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
DEFAULT_BATCH_SIZES = {"cpu": 8, "cuda": 32}


def create(
    weights: WeightsFile,
    *,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    cache_dir: Path | None = None,
) -> Predictor:
    """Put weights on a device; not yet warmed up.

    Args:
        weights: their file; it is read whole where the cache does not know it.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        engine: ``auto`` (OpenVINO on an x86-64 CPU, else PyTorch), ``torch`` or ``openvino``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8`` (OpenVINO, with a calibration beside the weights).
        cache_dir: where what an engine makes of the weights is kept for the next start; None keeps nothing.

    Raises:
        CheckpointError: the weights cannot be used.
        DeviceError: the device, engine or precision is not to be had here.

    """
    place = resolve_device(device)
    name = resolve_engine(place, engine)
    arithmetic = resolve_precision(place, name, precision)
    if name == "openvino":
        from model.engines.openvino.predictor import OpenVinoPredictor  # not installed everywhere

        floating = resolve_precision(place, name, "auto") if arithmetic == "int8" else arithmetic
        return OpenVinoPredictor(weights, arithmetic, floating, cache_dir)
    if place != "cpu":
        from model.engines.cuda.predictor import CudaPredictor

        return CudaPredictor(weights, place, arithmetic)
    from model.engines.torch.predictor import TorchPredictor

    return TorchPredictor(weights, arithmetic)


def resolve_engine(device: str, name: str) -> str:
    """Return the engine to use on a device.

    Raises:
        DeviceError: the engine is unknown, not installed, or does not drive this device.

    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        suits = device == "cpu" and platform.machine() in ("x86_64", "AMD64")
        return "openvino" if suits and installed else "torch"
    if name not in ENGINES:
        raise DeviceError(f"engine {name!r} is not known; use auto, {' or '.join(ENGINES)}")
    if name == "openvino" and device != "cpu":
        raise DeviceError("engine openvino runs on CPUs only; use --engine torch on a GPU")
    if name == "openvino" and not installed:
        raise DeviceError("engine openvino is not installed here (pip install openvino); use --engine torch")
    return name


def resolve_device(name: str) -> str:
    """Return the device behind a name, ``cpu`` or ``cuda:N``; never another one than was asked for.

    Raises:
        DeviceError: there is no such device here.

    """
    if name == "cpu":
        return name
    gpus = _gpus()
    if name == "auto":
        return "cuda:0" if gpus else "cpu"
    wanted = re.fullmatch(r"cuda(?::(\d+))?", name)
    if wanted is None:
        raise DeviceError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    index = int(wanted[1] or 0)
    if index >= gpus:
        raise DeviceError(f"device {name} is not to be had: {gpus} CUDA GPUs are visible; use --device auto or cpu")
    return f"cuda:{index}"


def resolve_precision(device: str, engine: str, name: str) -> str:
    """Return the arithmetic to use on a device, by an engine.

    Raises:
        DeviceError: the precision is unknown, or has no use there.

    """
    if name == "auto":
        if device != "cpu":
            return "fp16"
        return "bf16" if engine == "openvino" and computes_bfloat16() else "fp32"
    if name not in PRECISIONS:
        raise DeviceError(f"precision {name!r} is not known; use auto, {', '.join(PRECISIONS)}")
    if name == "int8" and device != "cpu":
        raise DeviceError("int8 runs on CPUs only; use --precision fp16 on a GPU")
    if name == "fp16" and device == "cpu":
        raise DeviceError("fp16 needs a GPU; use --precision bf16 or fp32 on a CPU")
    # PyTorch would round to bfloat16 after every layer, and masks suffer.
    if device == "cpu" and engine == "torch" and name != "fp32":
        raise DeviceError(f"{name} on a CPU needs the engine openvino; use --precision fp32 with torch")
    return name


def default_batch_size(device: str) -> int:
    """Return the largest batch worth serving on a device of this name."""
    return DEFAULT_BATCH_SIZES[resolve_device(device).partition(":")[0]]


def _gpus() -> int:
    """Count the CUDA GPUs; where the driver's library is not, PyTorch need not be asked."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
