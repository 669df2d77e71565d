"""The one model as the protocol describes it; dictionaries are JSON of REST, and read into the messages of gRPC."""

from typing import Any

from service import __version__
from service.batching.queue import Priority
from service.errors import UnknownModel
from service.frames.frame import Output
from service.runtime import Service

NAME, VERSION = "pranet", "1"
SERVER = "pranet-service"
INPUT = "image"
OUTPUTS: dict[str, str] = {Output.MASK: "UINT8", Output.PROBABILITY: "FP32"}
EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "schedule_policy", "statistics")
PRIORITIES = {1: Priority.LIVE, 2: Priority.SINGLE, 3: Priority.ARCHIVE}
DEFAULT_PRIORITY = 2
ANY = -1  # a dimension of any size
CONFIG_TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}


def check(name: str, version: str = "") -> None:
    """Return if this model and version are served here; no version means the only one.

    Raises:
        UnknownModel: they are not.

    """
    if name != NAME:
        raise UnknownModel(f"model {name!r} is not served here; the only one is {NAME!r}")
    if version not in ("", VERSION):
        raise UnknownModel(f"version {version!r} of {NAME!r} is not served here; the only one is {VERSION!r}")


def server_metadata() -> dict[str, Any]:
    """Name the server, and the extensions of the protocol that it has."""
    return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}


def metadata(service: Service) -> dict[str, Any]:
    """Describe the tensors; ``image`` may also be UINT8 [N, H, W, 3], which the protocol has no words for."""
    return {
        "name": NAME,
        "versions": [VERSION],
        "platform": service.model.engine,
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [ANY, 1]}],
        "outputs": [{"name": name, "datatype": kind, "shape": [ANY] * 3} for name, kind in OUTPUTS.items()],
    }


def config(service: Service) -> dict[str, Any]:
    """Describe how requests are scheduled; a request may hold as many pictures as there are places to wait."""
    return {
        "name": NAME,
        "platform": service.model.engine,
        "max_batch_size": service.settings.max_queue_size,
        "input": [{"name": INPUT, "data_type": "TYPE_STRING", "dims": [1]}],
        "output": [
            {"name": name, "data_type": CONFIG_TYPES[kind], "dims": [ANY] * 2} for name, kind in OUTPUTS.items()
        ],
        "dynamic_batching": {
            "preferred_batch_size": [service.max_batch_size],
            "max_queue_delay_microseconds": round(service.settings.max_queue_delay_ms * 1e3),
            "priority_levels": len(PRIORITIES),
            "default_priority_level": DEFAULT_PRIORITY,
        },
    }


def statistics(service: Service) -> dict[str, Any]:
    """Return what the service's own metrics count, of all transports: every frame is an inference."""
    metrics = service.metrics
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in (metrics.stage_duration, metrics.frame_duration, metrics.batch_size)
        for metric in family.collect()
        for sample in metric.samples
    }

    def duration(histogram: str, *labels: str) -> dict[str, int]:
        count, seconds = (
            [found.get((f"pranet_{histogram}_seconds_{part}", label), 0.0) for label in labels]
            for part in ("count", "sum")
        )
        return {"count": int(max(count)), "ns": round(sum(seconds) * 1e9)}

    return {
        "name": NAME,
        "version": VERSION,
        "last_inference": round(metrics.frame_rate.last * 1e3),
        "inference_count": int(found.get(("pranet_batch_size_sum",), 0)),
        "execution_count": int(found.get(("pranet_batch_size_count",), 0)),
        "inference_stats": {
            "success": duration("frame_duration", "answered"),
            "fail": duration("frame_duration", "failed"),
            "queue": duration("stage_duration", "queue"),
            "compute_input": duration("stage_duration", "decode", "preprocess"),
            "compute_infer": duration("stage_duration", "infer"),
            "compute_output": duration("stage_duration", "post", "encode"),
        },
    }
