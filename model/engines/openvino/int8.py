"""int8 arithmetic in OpenVINO, with the ranges of activations in a small calibration file beside the weights.

``pranet export --int8`` uses NNCF to find the range of every quantised activation once; weights are rounded here. So a
service needs neither NNCF nor pictures to start in int8. Weights that are stored in 8 bits are represented exactly.

What is quantised was chosen by measuring how much the masks change. Most harmful are two defaults of NNCF, ranges that
clip the largest activations and bias correction by means, and weights limited to half the range. (The limit prevents
saturation on processors without VNNI. Without it some sums saturate there, which changes almost no mask.) Next come
quantising the stem, the first block behind it and the end of the decoder, and rounding the operands of sums. So these
stay in floating point, as do the grouped convolutions, which gain nothing.
"""

import hashlib
import json
import logging
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import safetensors
import safetensors.numpy
from openvino import opset13 as opset

from model import files
from model.engines.predictor import DeviceError
from model.transforms import Pixels
from model.weights.weights_file import DIGEST_KEY, NO_DIGEST, WeightsFile, is_sealed, sealed

SUFFIX = ".int8.safetensors"
LEVELS = 256
WEIGHT_LIMIT = 127
QUANTISED = r"__module\.network\.(resnet\.layer(?!1\.0\.|2\.0\.convs)|rfb|ra[234]_conv[1-4]\.)"  # begins their names
FLOATING = rf"(?!{QUANTISED}).*"  # pattern of the operations that stay in floating point
FORMAT = "5"

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Which activations are quantised, and their ranges."""

    inputs: tuple[tuple[tuple[str, int], ...], ...]  # for each quantiser, the inputs it feeds: (operation, index)
    ranges: Array  # (quantisers, 2): lowest and highest activation
    digest: str = ""  # start of the SHA-256 of its file, in hex; empty before it is saved


def path_for(weights: WeightsFile) -> Path:
    """Return the path of the calibration that belongs to a weights file: the same name ending in ``SUFFIX``."""
    return weights.path.with_suffix(SUFFIX)


def load(weights: WeightsFile) -> Calibration:
    """Read the calibration file beside a weights file.

    Raises:
        DeviceError: there is none, it is damaged, or it belongs to other weights.

    """
    path = path_for(weights)
    advice = f"create it with: pranet export --int8 --weights {shlex.quote(str(weights.path))} --calibrate PICTURES"
    if not path.exists():
        raise DeviceError(f"precision int8 needs the calibration file {path}, which does not exist; {advice}")
    try:
        data = path.read_bytes()
        ranges: Array = safetensors.numpy.load(data)["ranges"]
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError, LookupError) as error:
        raise DeviceError(f"the calibration file {path} cannot be read ({error}); {advice}") from error
    if metadata.get("weights") != weights.sha256 or metadata.get("format") != FORMAT:
        raise DeviceError(f"the calibration file {path} was made for other weights or by another release; {advice}")
    if not is_sealed(data, metadata.get(DIGEST_KEY, "")):
        raise DeviceError(f"the calibration file {path} is damaged: its contents do not match its digest; {advice}")
    inputs = tuple(tuple((name, index) for name, index in each) for each in json.loads(metadata["inputs"]))
    return Calibration(inputs, ranges, hashlib.sha256(data).hexdigest()[:16])


def is_calibrated(weights: WeightsFile) -> bool:
    """Tell whether the calibration of a weights file lies beside it; one that cannot be used is warned of."""
    if not path_for(weights).exists():
        return False
    try:
        load(weights)
    except DeviceError as error:
        log.warning("%s; until then, the service computes in floating point", error)
        return False
    return True


def save(path: Path, calibration: Calibration, weights: WeightsFile) -> None:
    """Write the calibration of a weights file; other weights will refuse it."""
    inputs = json.dumps(calibration.inputs)
    metadata = {"format": FORMAT, "weights": weights.sha256, "inputs": inputs, DIGEST_KEY: NO_DIGEST}
    files.write(path, sealed(safetensors.numpy.save({"ranges": calibration.ranges}, metadata)))


def calibrate(graph: ov.Model, frames: Iterable[Pixels]) -> Calibration:
    """Find the ranges of activations with NNCF, for a float32 graph on typical frames, uint8 (3, 352, 352).

    Raises:
        ImportError: NNCF, which the extra ``int8`` installs, is missing.

    """
    import nncf  # optional extra
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    nncf.set_log_level(logging.WARNING)  # otherwise it logs every operation that stays in floating point
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
    """Round the weights of a float32 graph to int8 and insert quantisers for activations, in place."""
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
    """Round float32 weights (O, I, kH, kW) to int8 with a scale for each output channel."""
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True).clip(np.finfo(np.float32).tiny) / WEIGHT_LIMIT
    whole = opset.convert(opset.constant(np.rint(weight / scale).astype(np.int8)), np.float32)
    return opset.multiply(whole, opset.constant(scale.astype(np.float32))).output(0)


def _found(quantised: ov.Model) -> Calibration:
    inputs, ranges = [], []
    for operation in quantised.get_ops():
        if operation.get_type_name() != "FakeQuantize" or _is_constant(operation, 0):
            continue
        if operation.get_levels() != LEVELS:
            raise ValueError(
                f"NNCF chose {operation.get_levels()} levels for {operation.get_friendly_name()} instead of {LEVELS}"
            )
        targets = operation.output(0).get_target_inputs()
        inputs.append(tuple((each.get_node().get_friendly_name(), each.get_index()) for each in targets))
        ranges.append([_constant(operation, index).item() for index in (1, 2)])
    return Calibration(tuple(inputs), np.array(ranges, np.float32))


def _is_constant(operation: ov.Node, index: int) -> bool:
    return bool(operation.input(index).get_source_output().get_node().get_type_name() == "Constant")


def _constant(operation: ov.Node, index: int) -> Array:
    data: Array = operation.input(index).get_source_output().get_node().get_data()
    return data
