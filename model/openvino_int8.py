"""8-bit integer arithmetic in OpenVINO: what calibration finds out, kept in a small file beside the weights.

NNCF's post-training quantisation runs once, by ``pranet export --int8``. What it finds is the range of every
quantised activation and a correction of every bias; the weights are rounded here. So a service needs neither NNCF
nor pictures to start in int8.

Weights use half of the 8-bit range. Processors without VNNI add pairs of products of a byte of activation and a byte
of weight in 16 bits, which saturate: with the whole range, masks there would be wrong without a word. The stem, the
first stage and the decoder stay in floating point: single pictures lost much of their masks to them.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import safetensors
import safetensors.numpy
from openvino import opset13 as opset

from model.predictor import DeviceError
from model.transforms import Pixels
from model.weights_file import WeightsFile

SUFFIX = ".int8.safetensors"
LEVELS = 256
WEIGHT_LIMIT = 64  # 2 * 255 * 64 < 2 ** 15
FLOATING = r"(?!__module\.network\.resnet\.layer[234]\.).*"  # names of operations that are not quantised
FORMAT = "2"

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Where activations are quantised, to which range, and the corrected biases."""

    inputs: tuple[tuple[tuple[str, int], ...], ...]  # for each quantiser: names of operations, and which input
    ranges: Array  # (quantisers, 4): lowest and highest value in, lowest and highest value out
    biases: dict[str, Array]  # by name of the addition
    digest: str = ""  # of the file it was read from


def path_for(weights: WeightsFile) -> Path:
    """Return where the calibration of a weights file is looked for."""
    return weights.path.with_suffix(SUFFIX)


def load(weights: WeightsFile) -> Calibration:
    """Read the calibration that lies beside a weights file.

    Raises:
        DeviceError: there is none, or it belongs to other weights.

    """
    path = path_for(weights)
    advice = "make it with: pranet export --int8 --calibrate PICTURES"
    if not path.exists():
        raise DeviceError(f"precision int8 needs a calibration, and there is no {path}; {advice}")
    data = path.read_bytes()
    tensors: dict[str, Array] = safetensors.numpy.load(data)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    if metadata.get("weights") != weights.sha256 or metadata.get("format") != FORMAT:
        raise DeviceError(f"{path} was made for other weights or by another release; {advice}")
    inputs = tuple(tuple((name, index) for name, index in each) for each in json.loads(metadata["inputs"]))
    ranges = tensors.pop("ranges")
    return Calibration(inputs, ranges, tensors, hashlib.sha256(data).hexdigest()[:16])


def save(path: Path, calibration: Calibration, weights: WeightsFile) -> None:
    """Write a calibration for the weights of a file."""
    metadata = {"format": FORMAT, "weights": weights.sha256, "inputs": json.dumps(calibration.inputs)}
    path.write_bytes(safetensors.numpy.save({"ranges": calibration.ranges, **calibration.biases}, metadata))


def calibrate(graph: ov.Model, frames: Iterable[Pixels]) -> Calibration:
    """Quantise a graph with NNCF on frames, uint8 (3, 352, 352), and keep what was found out."""
    import nncf  # optional extra

    nncf.set_log_level(logging.WARNING)  # or it names every operation that stays in floating point
    frames = [frame[None] for frame in frames]
    quantised = nncf.quantize(
        graph,
        nncf.Dataset(frames),
        subset_size=len(frames),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(patterns=[FLOATING]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )
    return _found(graph, quantised)


def quantise(graph: ov.Model, calibration: Calibration) -> None:
    """Give a float32 graph 8-bit weights, quantisers and corrected biases, in place."""
    operations = _by_name(graph)
    for name, bias in calibration.biases.items():
        operations[name].input(1).replace_source_output(opset.constant(bias).output(0))
    for name, convolution in operations.items():
        if convolution.get_type_name() != "Convolution" or re.fullmatch(FLOATING, name):
            continue
        weight = convolution.input(1).get_source_output().get_node()
        convolution.input(1).replace_source_output(_rounded(weight.get_data()))
    for inputs, bounds in zip(calibration.inputs, calibration.ranges, strict=True):
        places = [operations[name].input(index) for name, index in inputs]
        source = places[0].get_source_output()
        low_in, high_in, low_out, high_out = (opset.constant(np.float32(bound)) for bound in bounds)
        quantiser = opset.fake_quantize(source, low_in, high_in, low_out, high_out, LEVELS)
        for place in places:
            place.replace_source_output(quantiser.output(0))
    graph.validate_nodes_and_infer_types()


def _rounded(weight: Array) -> ov.Output:
    """Round weights (O, I, kH, kW) to int8 of half the range, with a scale for each output channel."""
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True).clip(np.finfo(np.float32).tiny) / WEIGHT_LIMIT
    whole = opset.convert(opset.constant(np.rint(weight / scale).astype(np.int8)), np.float32)
    return opset.multiply(whole, opset.constant(scale.astype(np.float32))).output(0)


def _found(graph: ov.Model, quantised: ov.Model) -> Calibration:
    plain = _by_name(graph)
    inputs, ranges, biases = [], [], {}
    for operation in quantised.get_ops():
        if operation.get_type_name() == "FakeQuantize":
            if operation.get_levels() != LEVELS:
                raise ValueError(f"{operation.get_friendly_name()} has {operation.get_levels()} levels")
            targets = operation.output(0).get_target_inputs()
            inputs.append(tuple((each.get_node().get_friendly_name(), each.get_index()) for each in targets))
            ranges.append([float(_constant(operation, index).item()) for index in range(1, 5)])
        elif operation.get_type_name() == "Add" and _is_constant(operation, 1):
            name = operation.get_friendly_name()
            if not np.array_equal(_constant(operation, 1), _constant(plain[name], 1)):
                biases[name] = _constant(operation, 1).astype(np.float32)
    return Calibration(tuple(inputs), np.array(ranges, np.float32), biases)


def _by_name(graph: ov.Model) -> dict[str, ov.Node]:
    return {operation.get_friendly_name(): operation for operation in graph.get_ops()}


def _is_constant(operation: ov.Node, index: int) -> bool:
    return bool(operation.input(index).get_source_output().get_node().get_type_name() == "Constant")


def _constant(operation: ov.Node, index: int) -> Array:
    data: Array = operation.input(index).get_source_output().get_node().get_data()
    return data
