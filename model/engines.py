"""Which engine, device and precision a service runs on."""

import importlib.util
import platform
from pathlib import Path

import torch

from model.checkpoint import Checkpoint
from model.predictor import DTYPES, DeviceError, Predictor, TorchPredictor

ENGINES = ("torch", "openvino")
PRECISIONS = (*DTYPES, "int8")
DEFAULT_BATCH_SIZES = {"cpu": 8, "cuda": 32}


def create(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    cache_dir: Path | None = None,
) -> Predictor:
    """Put a checkpoint on a device; not yet warmed up.

    Args:
        checkpoint: the weights.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        engine: ``auto`` (OpenVINO on an x86-64 CPU, else PyTorch), ``torch`` or ``openvino``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8`` (OpenVINO, with a calibration beside the weights).
        cache_dir: where what an engine makes of the weights is kept for the next start; None keeps nothing.

    Raises:
        DeviceError: the device, engine or precision is not to be had here.

    """
    place = resolve_device(device)
    arithmetic = resolve_precision(place, precision)
    if resolve_engine(place, engine) == "openvino":
        from model.openvino_predictor import OpenVinoPredictor  # not installed everywhere

        floating = resolve_precision(place, "auto") if arithmetic == "int8" else arithmetic
        return OpenVinoPredictor(checkpoint, arithmetic, floating, cache_dir)
    if arithmetic == "int8":
        raise DeviceError("int8 needs the engine openvino; use --precision bf16 or fp32 with torch")
    return TorchPredictor(checkpoint, place, arithmetic)


def resolve_engine(device: torch.device, name: str) -> str:
    """Return the engine to use on a device.

    Raises:
        DeviceError: the engine is unknown, not installed, or does not drive this device.

    """
    installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        suits = device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
        return "openvino" if suits and installed else "torch"
    if name not in ENGINES:
        raise DeviceError(f"engine {name!r} is not known; use auto, {' or '.join(ENGINES)}")
    if name == "openvino" and device.type != "cpu":
        raise DeviceError("engine openvino runs on CPUs only; use --engine torch on a GPU")
    if name == "openvino" and not installed:
        raise DeviceError("engine openvino is not installed here (pip install openvino); use --engine torch")
    return name


def resolve_device(name: str) -> torch.device:
    """Return the device behind a name; never another one than was asked for.

    Raises:
        DeviceError: there is no such device here.

    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if gpus else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise DeviceError(f"device {name} is not to be had: {gpus} CUDA GPUs are visible; use --device auto or cpu")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def resolve_precision(device: torch.device, name: str) -> str:
    """Return the arithmetic to use on a device.

    Raises:
        DeviceError: the precision is unknown, or has no use on this device.

    """
    if name == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if _cpu_computes_bfloat16() else "fp32"
    if name not in PRECISIONS:
        raise DeviceError(f"precision {name!r} is not known; use auto, {', '.join(PRECISIONS)}")
    if name == "int8" and device.type != "cpu":
        raise DeviceError("int8 runs on CPUs only; use --precision fp16 on a GPU")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 needs a GPU; use --precision bf16 or fp32 on a CPU")
    return name


def default_batch_size(device: str) -> int:
    """Return the largest batch worth serving on a device of this name."""
    return DEFAULT_BATCH_SIZES[resolve_device(device).type]


def _cpu_computes_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
