"""The current model, and its hot reload.

The old model answers until the new one is loaded, checked and warmed up. Then the batcher gets the new one. Each batch
uses one model, so no answer mixes the two. If anything fails, the old model stays.
"""

import asyncio
import logging
from collections.abc import Callable

import numpy as np

from model.engines.predictor import ModelRef, Predictor
from model.transforms import Pixels
from service.batching.batcher import Batcher
from service.batching.device_thread import in_device_thread
from service.frames.frame import Inference
from service.frames.segmenter import inference
from service.frames.side_outputs import SideOutputs
from service.observability.metrics import Metrics

PREPARE_SECONDS = 300.0  # limit for loading and warm-up; the slowest GPU needs a small part of it

log = logging.getLogger(__name__)


class ModelSlot:
    """Holds the identity of the model behind the batcher, and replaces the model on ``reload``."""

    def __init__(
        self,
        batcher: Batcher[Pixels, Inference],
        ref: ModelRef,
        load: Callable[[], Predictor],
        side_outputs: SideOutputs | None,
        metrics: Metrics,
        *,
        max_batch_size: int,
        processes: int = 1,
    ) -> None:
        self._batcher = batcher
        self._load = load
        self._side_outputs = side_outputs
        self._metrics = metrics
        self._max_batch_size = max_batch_size
        self._prepare_seconds = PREPARE_SECONDS * processes  # they load one after the other
        self._name(ref)

    async def reload(self) -> bool:
        """Load the weights file again and use it from the next batch on; return whether that succeeded.

        The old model's memory is freed once its last batch is answered.
        """
        try:
            async with asyncio.timeout(self._prepare_seconds):
                predictor = await in_device_thread(self._prepared)
        except Exception as error:  # a file, a device or an engine can fail in any way
            reason = f"{type(error).__name__}: {error}"
            log.error("the reload failed, %s stays in use (%s)", self.ref.model_id, reason)
            self._metrics.reloads.labels("refused").inc()
            self._metrics.weights_current.set(0)
            return False
        old = self.ref
        self._batcher.infer = inference(predictor)
        self._name(predictor.model)
        if self._side_outputs is not None:
            self._side_outputs.forget()
        self._metrics.reloads.labels("taken").inc()
        self._metrics.weights_current.set(1)
        now = self.ref
        log.warning("reloaded: %s in %s replaces %s in %s", now.model_id, now.precision, old.model_id, old.precision)
        return True

    def _prepared(self) -> Predictor:
        predictor = self._load()
        predictor.warm_up(self._max_batch_size)
        side = predictor.model.input_size
        for level in (0, 255):  # weights can be finite and still overflow in the network
            inference(predictor)([np.full((3, side, side), level, np.uint8)])
        return predictor

    def _name(self, ref: ModelRef) -> None:
        self.ref = ref
        self._metrics.model_info.clear()
        self._metrics.model_info.labels(ref.model_id, ref.weights_sha256, ref.engine, ref.device, ref.precision).set(1)
