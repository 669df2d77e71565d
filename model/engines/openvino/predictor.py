"""Predictor for CPUs in OpenVINO: all cores work on one frame at low load, one core on each frame at high load."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import openvino as ov

from model.cores import usable_cores
from model.engines.openvino.graph import RUNTIME, graph
from model.engines.predictor import DeviceError, ModelRef
from model.transforms import SIZE, Floats, Pixels, upsample
from model.weights.weights_file import WeightsFile

MAX_STREAMS = 8  # each keeps about 60 MB of activations
ov.Type.u8.to_dtype()  # creates a table of types; two threads that create it at once would deadlock
CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
HINTS = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16}  # for floating-point operations


class OpenVinoPredictor:
    """One graph compiled twice, for latency and for throughput; the load decides which one runs.

    A single frame in flight runs on all cores, for the lowest latency. Once there are enough frames in flight to fill
    the cores, each runs on one core: no core waits for another, so the throughput is higher. Batches are split into
    frames, so a result does not depend on the other frames of its batch.

    Raises:
        CheckpointError: the weights file cannot be used.
        DeviceError: the processor does not support the precision, or int8 has no calibration for these weights.

    """

    slots = 2  # one batch runs while the answers of the other are delivered

    def __init__(
        self,
        weights: WeightsFile,
        precision: str,
        floating: str,
        cache_dir: Path | None = None,
        input_size: int = SIZE,
        threads: int | None = None,
    ) -> None:
        identity = (weights.model_id, weights.sha256)
        self.model = ModelRef(*identity, "openvino", "cpu", precision, weights.presence, input_size)
        cores = threads or usable_cores()
        self._streams = min(cores, MAX_STREAMS)
        self._in_flight = 0
        self._lock = threading.Lock()
        network = graph(weights, precision, cache_dir, input_size)
        self._alone = _Requests(network, floating, streams=1, threads=cores)
        self._alone.compile()  # the other waits for ``warm_up``, or for the first load: a single picture needs none
        self._side_by_side = self._alone
        if self._streams > 1:
            self._side_by_side = _Requests(network, floating, streams=self._streams, threads=cores)

    def warm_up(self, max_batch_size: int) -> None:
        """Run every stream once; other batch sizes need no warm-up, because every request holds one frame."""
        side = self.model.input_size
        for requests, streams in ((self._alone, 1), (self._side_by_side, self._streams)):
            requests.infer(np.zeros((streams, 3, side, side), np.uint8))

    def predict(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to float32 logits of S3 (N, S, S)."""
        with self._counted(len(frames)) as in_flight:
            requests = self._side_by_side if in_flight >= self._streams else self._alone
            return requests.infer(frames)

    @contextlib.contextmanager
    def _counted(self, frames: int) -> Iterator[int]:
        """Count frames in flight over all slots; yields the number including these."""
        with self._lock:
            self._in_flight += frames
            now = self._in_flight
        try:
            yield now
        finally:
            with self._lock:
                self._in_flight -= frames


class _Requests:
    """A graph that is compiled once, and its idle requests; a request is used by one thread at a time."""

    def __init__(self, network: ov.Model, floating: str, *, streams: int, threads: int) -> None:
        self._network: ov.Model | None = network  # None once it is compiled
        self._floating = floating
        self._options = {
            "INFERENCE_PRECISION_HINT": HINTS[floating],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # both compilations would be pinned to the same cores
        }
        self._compiled: ov.CompiledModel | None = None
        self._lock = threading.Lock()
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()

    def compile(self) -> ov.CompiledModel:
        """Compile the graph if that is not done yet, which takes about a second; return it.

        Raises:
            DeviceError: the processor does not support the precision.

        """
        with self._lock:
            if self._compiled is None:
                compiled = RUNTIME.compile_model(self._network, "CPU", self._options)
                hint = self._options["INFERENCE_PRECISION_HINT"]
                ignored = compiled.get_property("INFERENCE_PRECISION_HINT") != hint
                # On processors with AVX-512 alone, OpenVINO takes the hint and computes in float32 with conversions.
                emulated = self._floating == "bf16" and "BF16" not in RUNTIME.get_property("CPU", CAPABILITIES)
                if ignored or emulated:
                    advice = "use --precision fp32, int8 or auto"
                    raise DeviceError(f"this processor does not support {self._floating}; {advice}")
                self._compiled, self._network = compiled, None
            return self._compiled

    def infer(self, frames: Pixels) -> Floats:
        """Map uint8 RGB (N, 3, S, S) to float32 logits (N, S, S), with one request for each frame."""
        requests = [self._take() for _ in frames]
        logits = np.empty((len(frames), *frames.shape[2:]), np.float32)
        for request, frame in zip(requests, frames, strict=True):
            request.start_async([frame[None]])  # copies: with ``share_inputs``, an idle request would keep all frames
        _wait(requests)
        for request, out in zip(requests, logits, strict=True):
            coarse = request.get_output_tensor().data[0, 0]
            out[:] = upsample(coarse, *out.shape)  # in float32 for every precision
            self._idle.put(request)
        return logits

    def _take(self) -> ov.InferRequest:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self.compile().create_infer_request()


def _wait(requests: list[ov.InferRequest]) -> None:
    """Wait for all requests; raise the first error only once no request reads its frame any more."""
    try:
        for request in requests:
            request.wait()
    except BaseException:
        for request in requests:
            with contextlib.suppress(RuntimeError):
                request.wait()
        raise
