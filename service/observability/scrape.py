"""The metrics of all processes of a service, whichever of them is scraped.

Counters and histograms are summed, also those of processes that have ended: each process begins with what its
predecessor has last said. Nothing is shown to Prometheus that is not kept first, so no counter goes backwards. What a
process counted after it was last asked is lost if it is killed.
"""

import asyncio
import contextlib
import itertools
import operator
import pickle
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.samples import Sample

from service.observability.metrics import Metrics
from service.processes.group import Group, State

ANSWER_SECONDS = 1.0  # for the other processes to answer
SUMMED = ("counter", "histogram")
UP = "pranet_process_up"
REPLACEMENTS = "pranet_process_replacements"
# How the gauges of processes become one. Where they tell of the same thing, the worst value counts.
GAUGES: dict[str, Callable[[float, float], float]] = {
    "pranet_queue_depth": operator.add,
    "pranet_in_flight": operator.add,
    "pranet_stuck_threads": operator.add,
    "pranet_fps": operator.add,
    "pranet_streams_active": operator.add,
    "process_virtual_memory_bytes": operator.add,
    "process_resident_memory_bytes": operator.add,
    "process_open_fds": operator.add,
    "process_max_fds": min,
    "process_start_time_seconds": min,
    "pranet_ready": min,
    "pranet_tokens_current": min,
    "pranet_token_end_timestamp_seconds": min,
    "pranet_certificates_current": min,
    "pranet_certificate_end_timestamp_seconds": min,
    "pranet_weights_current": min,
    "pranet_model_info": max,
    "pranet_gpu_utilization_ratio": max,
    "pranet_gpu_memory_used_bytes": max,
    UP: max,
}


class Scrape:
    """Collects the metrics of this process, and those of the others of its group."""

    def __init__(self, metrics: Metrics, group: Group) -> None:
        self._metrics = metrics
        self._group = group
        self._past: list[Metric] = []  # what the processes before this one, in its place, have counted
        metrics.process_up.labels(str(group.index)).set(1)
        if group.snapshots and (last := group.snapshots.read(group.index)):
            self._past = _counted(pickle.loads(last))

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answer the other processes inside the block."""
        if self._group.snapshots is None:
            yield
            return
        with self._group.snapshots.answering(self._group.index, self._text):
            yield

    async def families(self) -> list[Metric]:
        """Return the metrics of this process, or of all if there are several, which are merged in a thread."""
        group = self._group
        if group.snapshots is None:
            return list(self._metrics.registry.collect())
        own = self._own()
        group.snapshots.write(group.index, pickle.dumps(own))
        others = [each for each in range(group.size) if each != group.index]
        present = [each for each in others if group.state(each) is not State.ABSENT]
        answered = await group.snapshots.ask(group.index, present, ANSWER_SECONDS)
        said = {index: group.snapshots.read(index) for index in others}
        return await asyncio.to_thread(self._merged, own, said, answered)

    def _merged(self, own: list[Metric], said: Mapping[int, bytes], answered: set[int]) -> list[Metric]:
        """Merge the metrics of this process with what the others have said, now or, if they are silent, before."""
        families = {index: pickle.loads(text) if text else [] for index, text in said.items()}
        found = merged(own, *(each if index in answered else _counted(each) for index, each in families.items()))
        self._mark_up(found, answered | {self._group.index})
        (replacements,) = (each for each in found if each.name == REPLACEMENTS)
        replacements.samples = [
            Sample(f"{REPLACEMENTS}_total", {}, float(self._group.replacements))
        ]  # the parent counts them
        return found

    def _own(self) -> list[Metric]:
        return merged(self._past, self._metrics.registry.collect())

    def _text(self) -> bytes:
        return pickle.dumps(self._own())

    def _mark_up(self, families: Sequence[Metric], up: set[int]) -> None:
        (family,) = (each for each in families if each.name == UP)
        for index in set(range(self._group.size)) - up:
            family.add_sample(UP, {"process": str(index)}, 0.0)
        family.samples.sort(key=lambda sample: int(sample.labels["process"]))


def merged(*processes: Iterable[Metric]) -> list[Metric]:
    """Merge the families of several processes, which stay as they are."""
    found: dict[str, Metric] = {}
    values: dict[str, dict[Hashable, Sample]] = {}
    for family in itertools.chain(*processes):
        if family.name not in found:
            found[family.name] = Metric(family.name, family.documentation, family.type)
            values[family.name] = {}
        _add(values[family.name], family)
    for name, samples in values.items():
        found[name].samples = list(samples.values())
    return list(found.values())


def _add(found: dict[Hashable, Sample], family: Metric) -> None:
    join = operator.add if family.type in SUMMED else GAUGES[family.name]
    for sample in family.samples:
        key = (sample.name, *sample.labels.values())  # the labels of a family have one order
        known = found.get(key)
        found[key] = sample if known is None else known._replace(value=join(known.value, sample.value))


def _counted(families: Iterable[Metric]) -> list[Metric]:
    return [family for family in families if family.type in SUMMED]
