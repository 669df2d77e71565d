"""Conversion of the PyTorch network to an OpenVINO graph.

The graph takes one frame, uint8 (1, 3, 352, 352) by default, and normalises it in its first convolution. A batch
becomes several requests at once, because convolutions of this size keep a core busy with a single frame.
"""

import logging
import warnings

import openvino as ov
import torch

from model.engines.torch.predictor import limit_threads
from model.network.normalisation import Centred
from model.rewrites.decoder_folding import fold_end_of_decoder
from model.rewrites.folding import fold_batch_norm
from model.rewrites.scale_grouping import group_scales
from model.transforms import SIZE
from model.weights import checkpoint
from model.weights.weights_file import WeightsFile

log = logging.getLogger(__name__)


def convert(weights: WeightsFile, size: int = SIZE) -> ov.Model:
    """Convert weights to a graph: uint8 RGB (1, 3, size, size) to float32 logits of S3 (1, 1, size / 8, size / 8).

    Raises:
        CheckpointError: the weights file cannot be used.

    """
    limit_threads()
    network = checkpoint.of_file(weights).network()
    log.info("converting %s for OpenVINO, which takes some seconds at the first start", weights.model_id)
    folded = fold_batch_norm(network)
    whole = Centred(group_scales(fold_end_of_decoder(folded, size, size)))
    example = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates traces since 2.13, but OpenVINO converts them fastest
        traced = torch.jit.trace(whole, example, check_trace=False)  # type: ignore[no-untyped-call]
        return ov.convert_model(traced, example_input=example, input=[ov.PartialShape([1, 3, size, size])])
