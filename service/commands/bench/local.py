"""Measures engine and pipeline without a server: the best that the hardware can do."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from model.cores import usable_cores
from model.engines.predictor import Predictor
from service.commands.bench.measure import Answer, Row, Window, own_cpu_seconds, summarise, timed
from service.frames.frame import Frame, Inference, prepare, render

MAX_PIXELS = 178_000_000


def engine_rows(predictor: Predictor, batch_sizes: Iterable[int], warm_up: float, seconds: float) -> Iterator[Row]:
    """Measure each batch size, one batch after another and with as many at once as the service keeps in flight."""
    side = predictor.model.input_size
    for size, slots in itertools.product(batch_sizes, sorted({1, predictor.slots})):
        frames = np.random.default_rng(0).integers(0, 256, (size, 3, side, side), dtype=np.uint8)

        def infer(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = frames) -> None:
            predictor.predict(frames)

        name = f"batches of {size}" + (f", {slots} at once" if slots > 1 else "")
        yield _row(name, infer, size, slots, warm_up, seconds)


def pipeline_rows(predictor: Predictor, images: Sequence[bytes], warm_up: float, seconds: float) -> Iterator[Row]:
    """Measure JPEG to PNG in one thread, then in several threads that overlap decoding, inference and encoding."""
    rotation = itertools.cycle(images)
    lock = threading.Lock()

    def one() -> None:
        with lock:
            image = next(rotation)
        frame = Frame(source=image)
        prepare(frame, MAX_PIXELS, predictor.model.input_size)
        assert frame.item is not None
        frame.result = Inference(predictor.predict(frame.item[None])[0], predictor.model)
        render(frame)

    for threads in (1, usable_cores() + 1, 4 * usable_cores()):
        yield _row("one after another" if threads == 1 else f"{threads} threads", one, 1, threads, warm_up, seconds)


def _row(name: str, call: Callable[[], None], frames: int, threads: int, warm_up: float, seconds: float) -> Row:
    begin = time.perf_counter() + warm_up
    end = begin + seconds

    def loop(_: int) -> list[Answer]:
        answers = []
        while time.perf_counter() < end:
            answers.append(timed(call, frames))
        return answers

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(loop, number) for number in range(threads)]
        time.sleep(max(0.0, begin - time.perf_counter()))
        before = own_cpu_seconds()
        time.sleep(max(0.0, end - time.perf_counter()))
        cpu = own_cpu_seconds() - before
        answers = [answer for each in running for answer in each.result()]
    return summarise(name, answers, Window(begin, end, cpu, None))
