"""The work of every peer, from JPEG to PNG mask, in plain Pillow, NumPy and OpenVINO.

python segmentation.py MODEL BATCH SECONDS THREADS PICTURE...   runs it in a loop, and prints as JSON the pictures per
                                                               second, the median ms and the CPU ms of a picture
"""

import io
import itertools
import json
import resource
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
import openvino as ov
from PIL import Image

SIZE = 352
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
MAX_BATCH = 8
MAX_WAIT_SECONDS = 0.005


class Engine:
    """A compiled network on a number of threads (0: all cores), in bfloat16 if the processor supports it."""

    def __init__(self, model: str, threads: int, max_batch: int = MAX_BATCH) -> None:
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if threads:
            options |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        self._compiled = ov.Core().compile_model(model, "CPU", options)
        self._of_thread = threading.local()
        for size in range(1, max_batch + 1):  # kernels are made when a size is first seen
            self.infer([np.zeros((3, SIZE, SIZE), np.float32)] * size)

    def infer(self, frames: list[np.ndarray]) -> np.ndarray:
        """Map normalised frames (3, 352, 352) to logits (N, 352, 352)."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        request = self._of_thread.request
        request.infer([np.stack(frames)], share_inputs=True)
        return np.array(request.get_output_tensor().data[:, 0])


def to_input(jpeg: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    pixels = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)), picture.size


def to_png(logits: np.ndarray, size: tuple[int, int]) -> bytes:
    probability = Image.fromarray(0.5 + 0.5 * np.tanh(0.5 * logits)).resize(size, Image.Resampling.BILINEAR)
    encoded = io.BytesIO()
    Image.fromarray((np.asarray(probability) > 0.5).astype(np.uint8) * 255).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def segment(engine: Engine, jpegs: list[bytes]) -> list[bytes]:
    frames, sizes = zip(*map(to_input, jpegs), strict=True)
    return [to_png(logits, size) for logits, size in zip(engine.infer(list(frames)), sizes, strict=True)]


def loop(model: str, batch: int, seconds: float, threads: int, pictures: list[bytes]) -> dict[str, float]:
    engine = Engine(model, threads, batch)
    rotation = itertools.cycle(pictures)
    print("ready", flush=True)
    sys.stdin.readline()  # several loops begin together
    used = resource.getrusage(resource.RUSAGE_SELF)
    took: list[float] = []
    while sum(took) < seconds:
        began = time.perf_counter()
        segment(engine, list(itertools.islice(rotation, batch)))
        took.append(time.perf_counter() - began)
    now = resource.getrusage(resource.RUSAGE_SELF)
    done = batch * len(took)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {"rate": done / sum(took), "p50_ms": 1e3 * statistics.median(took), "cpu_ms": 1e3 * cpu / done}


if __name__ == "__main__":
    model, batch, seconds, threads, *files = sys.argv[1:]
    print(
        json.dumps(loop(model, int(batch), float(seconds), int(threads), [Path(file).read_bytes() for file in files]))
    )
