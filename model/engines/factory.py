"""Choice of engine, device and precision.

An engine is imported only when it is chosen: OpenVINO starts from its cache without PyTorch, which saves seconds.
"""

import ctypes
import importlib.util
import platform
import re
from pathlib import Path
from typing import Literal

from model.cores import computes_bfloat16, computes_int8
from model.engines.predictor import DeviceError, Predictor
from model.files import user_cache
from model.transforms import SIZE
from model.weights.weights_file import WeightsFile

ENGINES = ("torch", "openvino")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
AMPERE = 8  # compute capability
DEFAULT_BATCH_SIZES = {"cpu": 8, "cuda": 32}


def create(
    weights: WeightsFile,
    *,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    cache_dir: Path | Literal["auto"] | None = "auto",
    input_size: int = SIZE,
    threads: int | None = None,
) -> Predictor:
    """Create the predictor for a weights file; call ``warm_up`` before its first batch.

    Args:
        weights: an identified weights file; its tensors are loaded unless the engine finds its network in the cache.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        engine: ``auto`` (OpenVINO on an x86-64 CPU, else PyTorch), ``torch`` or ``openvino``.
        precision: ``fp32``, ``bf16``, ``fp16``, ``int8`` (OpenVINO with a calibration beside the weights) or ``auto``:
            int8 where it is the fastest and the weights have their calibration, else what ``resolve_precision`` says.
        cache_dir: folder where an engine keeps its converted network for the next start, ``auto`` (``user_cache()``),
            or None for no cache.
        input_size: side of the network's square input, pixels, one of ``SIZES``.
        threads: how many compute on a CPU; by default as many as there are usable cores.

    Raises:
        CheckpointError: the weights file cannot be used.
        DeviceError: the device, engine or precision is not available on this machine.

    """
    place = resolve_device(device)
    name = resolve_engine(place, engine)
    arithmetic = resolve_precision(place, name, precision)
    if name == "openvino":
        from model.engines.openvino import int8  # not installed on every platform
        from model.engines.openvino.predictor import OpenVinoPredictor

        floating = resolve_precision(place, name, "auto") if arithmetic == "int8" else arithmetic
        if precision == "auto" and computes_int8() and int8.is_calibrated(weights):
            arithmetic = "int8"
        kept = user_cache() if cache_dir == "auto" else cache_dir
        return OpenVinoPredictor(weights, arithmetic, floating, kept, input_size, threads)
    if place != "cpu":
        from model.engines.cuda.predictor import CudaPredictor

        return CudaPredictor(weights, place, arithmetic, input_size)
    from model.engines.torch.predictor import TorchPredictor

    return TorchPredictor(weights, arithmetic, input_size, threads)


def resolve_engine(device: str, name: str) -> str:
    """Return the engine, ``torch`` or ``openvino``, for a device that ``resolve_device`` returned.

    Raises:
        DeviceError: the engine is unknown, not installed, or does not run on this device.

    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        suits = device == "cpu" and platform.machine() in ("x86_64", "AMD64")
        return "openvino" if suits and installed else "torch"
    if name not in ENGINES:
        raise DeviceError(f"engine {name!r} is unknown; use auto, {' or '.join(ENGINES)}")
    if name == "openvino" and device != "cpu":
        raise DeviceError("engine openvino runs on CPUs only; use --engine torch on a GPU")
    if name == "openvino" and not installed:
        raise DeviceError("engine openvino is not installed; install it (pip install openvino) or use --engine torch")
    return name


def resolve_device(name: str) -> str:
    """Return ``cpu`` or ``cuda:N``; only ``auto`` lets this function choose.

    Raises:
        DeviceError: the name is malformed, or this machine has no such device.

    """
    if name == "cpu":
        return name
    gpus = _gpus()
    if name == "auto":
        return next((f"cuda:{index}" for index in range(gpus) if _computes(index)), "cpu")
    wanted = re.fullmatch(r"cuda(?::(\d+))?", name)
    if wanted is None:
        raise DeviceError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N")
    index = int(wanted[1] or 0)
    if index >= gpus:
        raise DeviceError(
            f"device {name} is not available (CUDA GPUs found: {gpus}); use --device auto or cpu, or give the "
            "container its GPU (docker run --gpus all)"
        )
    if not _computes(index):
        raise DeviceError(
            f"the installed PyTorch cannot compute on {name}, which may be too old for it or out of order; install a "
            "build for this GPU (docs/operations.md), or use --device auto or cpu"
        )
    return f"cuda:{index}"


def resolve_precision(device: str, engine: str, name: str) -> str:
    """Return the precision for a device and an engine, both resolved; ``auto`` is one in floating point.

    Raises:
        DeviceError: the precision is unknown, or the device and engine do not support it.

    """
    if name == "auto":
        if device != "cpu":
            return "fp16"
        return "bf16" if engine == "openvino" and computes_bfloat16() else "fp32"
    if name not in PRECISIONS:
        raise DeviceError(f"precision {name!r} is unknown; use auto, {', '.join(PRECISIONS)}")
    if name == "bf16" and device != "cpu" and _generation(device) < AMPERE:
        raise DeviceError("bf16 needs an NVIDIA GPU of the generation Ampere or later; use --precision fp16")
    if name == "int8" and device != "cpu":
        raise DeviceError("int8 runs on CPUs only; use --precision fp16 on a GPU")
    if name == "fp16" and device == "cpu":
        raise DeviceError("fp16 needs a GPU; use --precision bf16 or fp32 on a CPU")
    # On a CPU, PyTorch rounds to bfloat16 after every layer, which makes masks worse.
    if device == "cpu" and engine == "torch" and name != "fp32":
        raise DeviceError(f"{name} on a CPU needs the engine openvino; use --precision fp32 with torch")
    return name


def default_batch_size(device: str) -> int:
    """Return the default of the largest batch on a device: 8 frames on a CPU, 32 on a GPU."""
    return DEFAULT_BATCH_SIZES[resolve_device(device).partition(":")[0]]


def _generation(device: str) -> int:
    import torch

    return torch.cuda.get_device_capability(device)[0]


def _computes(index: int) -> bool:
    """Tell whether a GPU computes at all: PyTorch also lists those that its build has no kernels for."""
    import torch

    try:
        return bool(torch.zeros(1, device=f"cuda:{index}").add_(1).item() == 1)
    except RuntimeError:
        return False


def _gpus() -> int:
    """Count the CUDA GPUs; imports PyTorch only if the driver's library exists."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
