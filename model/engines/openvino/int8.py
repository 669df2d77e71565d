"""8-bit integer arithmetic in OpenVINO: the ranges of activations, kept in a small file beside the weights.

NNCF finds the range of every quantised activation once, in ``pranet export --int8``; the weights are rounded here. So a
service needs neither NNCF nor pictures to start in int8. Weights that are stored with 8 bits come out exact.

What costs masks was measured. Most: ranges that leave out the largest values and biases corrected by their means, both
NNCF's defaults, and weights of half the range. (Processors without VNNI need that lest pairs of products saturate; on
them some do here, which shows in next to no mask.) Then: the stem, the first two stages and the decoder, and sums,
whose parts would be rounded. So the convolutions of the last two stages are quantised, and nothing else.
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

from model.engines.predictor import DeviceError
from model.transforms import Pixels
from model.weights.weights_file import WeightsFile

SUFFIX = ".int8.safetensors"
LEVELS = 256
WEIGHT_LIMIT = 127
FLOATING = r"(?!__module\.network\.resnet\.layer[34]\.).*"  # names of operations that are not quantised
FORMAT = "3"

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Where activations are quantised, and to which range."""

    inputs: tuple[tuple[tuple[str, int], ...], ...]  # for each quantiser: names of operations, and which input
    ranges: Array  # (quantisers, 2): lowest and highest value
    digest: str = ""  # of the file it was read from


def path_for(weights: WeightsFile) -> Path:
    """Return where the calibration of a weights file is looked for."""
    return weights.path.with_suffix(SUFFIX)


def load(weights: WeightsFile) -> Calibration:
    """Read the calibration that lies beside a weights file.

    Raises:
        DeviceError: there is none, it is damaged, or it belongs to other weights.

    """
    path = path_for(weights)
    advice = "make it with: pranet export --int8 --calibrate PICTURES"
    if not path.exists():
        raise DeviceError(f"precision int8 needs a calibration, and there is no {path}; {advice}")
    try:
        data = path.read_bytes()
        ranges: Array = safetensors.numpy.load(data)["ranges"]
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError, LookupError) as error:
        raise DeviceError(f"the calibration {path} cannot be read ({error}); {advice}") from error
    if metadata.get("weights") != weights.sha256 or metadata.get("format") != FORMAT:
        raise DeviceError(f"{path} was made for other weights or by another release; {advice}")
    inputs = tuple(tuple((name, index) for name, index in each) for each in json.loads(metadata["inputs"]))
    return Calibration(inputs, ranges, hashlib.sha256(data).hexdigest()[:16])


def save(path: Path, calibration: Calibration, weights: WeightsFile) -> None:
    """Write a calibration for the weights of a file."""
    metadata = {"format": FORMAT, "weights": weights.sha256, "inputs": json.dumps(calibration.inputs)}
    path.write_bytes(safetensors.numpy.save({"ranges": calibration.ranges}, metadata))


def calibrate(graph: ov.Model, frames: Iterable[Pixels]) -> Calibration:
    """Quantise a graph with NNCF on frames, uint8 (3, 352, 352), and keep what was found out."""
    import nncf  # optional extra
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    nncf.set_log_level(logging.WARNING)  # or it names every operation that stays in floating point
    frames = [frame[None] for frame in frames]
    lowest = StatisticsCollectorParameters(StatisticsType.MIN, AggregatorType.MIN)
    highest = StatisticsCollectorParameters(StatisticsType.MAX, AggregatorType.MAX)
    quantised = nncf.quantize(
        graph,
        nncf.Dataset(frames),
        subset_size=len(frames),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(patterns=[FLOATING], types=["Add"]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE,
            disable_bias_correction=True,
            activations_range_estimator_params=RangeEstimatorParameters(lowest, highest),
        ),
    )
    return _found(quantised)


def quantise(graph: ov.Model, calibration: Calibration) -> None:
    """Give a float32 graph 8-bit weights and quantisers, in place."""
    operations = {operation.get_friendly_name(): operation for operation in graph.get_ops()}
    for name, convolution in operations.items():
        if convolution.get_type_name() != "Convolution" or re.fullmatch(FLOATING, name):
            continue
        weight = convolution.input(1).get_source_output().get_node()
        convolution.input(1).replace_source_output(_rounded(weight.get_data()))
    for inputs, bounds in zip(calibration.inputs, calibration.ranges, strict=True):
        places = [operations[name].input(index) for name, index in inputs]
        source = places[0].get_source_output()
        low, high = (opset.constant(np.float32(bound)) for bound in bounds)
        quantiser = opset.fake_quantize(source, low, high, low, high, LEVELS)
        for place in places:
            place.replace_source_output(quantiser.output(0))
    graph.validate_nodes_and_infer_types()


def _rounded(weight: Array) -> ov.Output:
    """Round weights (O, I, kH, kW) to int8, with a scale for each output channel."""
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True).clip(np.finfo(np.float32).tiny) / WEIGHT_LIMIT
    whole = opset.convert(opset.constant(np.rint(weight / scale).astype(np.int8)), np.float32)
    return opset.multiply(whole, opset.constant(scale.astype(np.float32))).output(0)


def _found(quantised: ov.Model) -> Calibration:
    inputs, ranges = [], []
    for operation in quantised.get_ops():
        if operation.get_type_name() != "FakeQuantize" or _is_constant(operation, 0):
            continue
        if operation.get_levels() != LEVELS:
            raise ValueError(f"{operation.get_friendly_name()} has {operation.get_levels()} levels")
        targets = operation.output(0).get_target_inputs()
        inputs.append(tuple((each.get_node().get_friendly_name(), each.get_index()) for each in targets))
        ranges.append([_constant(operation, index).item() for index in (1, 2)])
    return Calibration(tuple(inputs), np.array(ranges, np.float32))


def _is_constant(operation: ov.Node, index: int) -> bool:
    return bool(operation.input(index).get_source_output().get_node().get_type_name() == "Constant")


def _constant(operation: ov.Node, index: int) -> Array:
    data: Array = operation.input(index).get_source_output().get_node().get_data()
    return data
