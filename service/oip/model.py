"""The model's metadata, configuration and statistics, as JSON for REST; gRPC parses its messages from the same JSON."""

from typing import Any

from service import __version__
from service.batching.queue import Priority
from service.errors import UnknownModel
from service.frames.frame import Output
from service.runtime import Service
from service.validation import shown

NAME, VERSION = "pranet", "1"
SERVER = "pranet-service"
INPUT = "image"
OUTPUTS: dict[str, str] = {Output.MASK: "UINT8", Output.PROBABILITY: "FP32"}
EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "schedule_policy", "statistics")
PRIORITIES = {1: Priority.LIVE, 2: Priority.SINGLE, 3: Priority.ARCHIVE}
DEFAULT_PRIORITY = 2
ANY = -1  # a dimension of any size
UNSUPPORTED = {  # parts of Triton's interface: the beginning of their path below /v2, and their gRPC methods
    "trace/setting": ("trace settings", ("TraceSetting",)),
    "logging": ("log settings", ("LogSettings",)),
    "repository/models": ("loading and unloading of models", ("RepositoryModelLoad", "RepositoryModelUnload")),
    **{
        f"{kind.lower()}sharedmemory": (
            "shared memory",
            tuple(f"{kind}SharedMemory{method}" for method in ("Status", "Register", "Unregister")),
        )
        for kind in ("System", "Cuda")
    },
}
COUNTED = ("pranet_stage_duration_seconds", "pranet_frame_duration_seconds", "pranet_batch_size")  # for statistics
CONFIG_TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}


def check(name: str, version: str = "") -> None:
    """Check the name and version of the model; an empty version means the only one.

    Raises:
        UnknownModel: the service does not have this model or version.

    """
    if name != NAME:
        raise UnknownModel(f"model {shown(name)} does not exist; the only one is {NAME!r}")
    if version not in ("", VERSION):
        raise UnknownModel(f"version {shown(version)} of {NAME!r} does not exist; the only one is {VERSION!r}")


def refusal(what: str) -> str:
    """Return the message that refuses one of ``UNSUPPORTED``."""
    return f"the service does not support {what}; its extensions are {', '.join(EXTENSIONS)}"


def server_metadata() -> dict[str, Any]:
    """Return name and version of the server, and the protocol extensions that it supports."""
    return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}


def metadata(service: Service) -> dict[str, Any]:
    """Return the inputs and outputs; the protocol cannot express that ``image`` may also be UINT8 [N, H, W, 3]."""
    return {
        "name": NAME,
        "versions": [VERSION],
        "platform": service.model.engine,
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [ANY, 1]}],
        "outputs": [{"name": name, "datatype": kind, "shape": [ANY] * 3} for name, kind in OUTPUTS.items()],
    }


def config(service: Service) -> dict[str, Any]:
    """Return the model configuration; a request may hold as many pictures as the queue of a process has places."""
    return {
        "name": NAME,
        "platform": service.model.engine,
        "max_batch_size": service.max_queue_size,
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


def index(ready: bool, only_ready: bool) -> list[dict[str, Any]]:
    """Return the state of every model, or of those only that are ready; ``ready`` is that of the service or process."""
    state = (
        {"state": "READY", "reason": ""} if ready else {"state": "UNAVAILABLE", "reason": "the service is not ready"}
    )
    return [{"name": NAME, "version": VERSION, **state}] if ready or not only_ready else []


async def statistics(service: Service) -> dict[str, Any]:
    """Return the statistics of all processes, taken from the Prometheus metrics; each frame counts as an inference."""
    families = await service.scrape.families()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        if family.name in COUNTED
        for sample in family.samples
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
        "last_inference": round(service.metrics.frame_rate.last * 1e3),
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
