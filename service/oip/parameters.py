"""The parameters of a request; each one is applied or refused with a reason, never ignored."""

from collections.abc import Iterable, Mapping

from service.errors import InvalidParameter, InvalidRequest
from service.frames.frame import Options, Output
from service.oip.model import DEFAULT_PRIORITY, OUTPUTS, PRIORITIES
from service.options import FrameOptions, read
from service.validation import shown, typed

Value = bool | int | float | str
Parameters = Mapping[str, Value]

SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
FINAL_RESPONSE = "triton_enable_empty_final_response"  # Triton's clients send it in streams, the C++ one in every call
# Which tensors are binary over HTTP. Over gRPC all are, and KServe's client sends these parameters to no effect.
BINARY_OUTPUTS, OF_INPUT, OF_OUTPUT = "binary_data_output", ("binary_data_size",), ("binary_data",)
KNOWN = ("timeout", "priority", "threshold", "roi", BINARY_OUTPUTS)
PASSED_OVER = (*SEQUENCE, FINAL_RESPONSE)  # sent by clients without being asked, and so not named as supported
MICROSECONDS = 1e6
MOST = 2**63 - 1  # of an int64, as over gRPC


def options(parameters: Parameters, outputs: Iterable[str], default_threshold: float) -> Options:
    """Return the options for the pictures of a request; empty ``outputs`` means both, mask and probability.

    Raises:
        InvalidRequest: an output is unknown or given twice.
        InvalidParameter: a parameter is unknown, out of range or not supported.

    """
    refuse_unknown(parameters, KNOWN, "a request", passed_over=PASSED_OVER)
    if any(parameters.get(name) for name in SEQUENCE):  # 0 and false mean none
        raise InvalidParameter(
            "sequences are not supported, as every request is independent; leave sequence_id out, and send video that "
            "needs smoothing to pranet.v1.SegmentationService/SegmentStream"
        )
    flag(FINAL_RESPONSE, parameters, False)  # only validated: each request has exactly one response, the final one
    priority = parameters.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in (0, *PRIORITIES):
        told = "send 1 (live), 2 (single), 3 (archive) or 0 (the default, 2)"
        raise InvalidParameter(f"priority is {typed(priority)}; {told}")
    arrays = _arrays(outputs)
    asked = {name: parameters[name] for name in ("threshold", "roi") if name in parameters}
    return read(FrameOptions, asked).options(default_threshold, PRIORITIES[priority or DEFAULT_PRIORITY], arrays=arrays)


def seconds(parameters: Parameters, limit: float) -> float:
    """Return the timeout of a request in seconds, at most ``limit``; its ``timeout`` is in microseconds, 0 means none.

    Raises:
        InvalidParameter: ``timeout`` is not a whole number.

    """
    timeout = _whole("timeout", parameters)
    return min(timeout / MICROSECONDS, limit) if timeout else limit


def flag(name: str, parameters: Parameters, default: bool) -> bool:
    """Return a boolean parameter.

    Raises:
        InvalidParameter: it is neither true nor false.

    """
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidParameter(f"{name} is {typed(value)}; send true or false")
    return value


def binary_outputs(request: Parameters, outputs: Mapping[str, Parameters]) -> frozenset[str]:
    """Return the names of the outputs that a request over HTTP wants in binary, after the JSON.

    Raises:
        InvalidParameter: ``binary_data_output`` or ``binary_data`` is neither true nor false.

    """
    default = flag(BINARY_OUTPUTS, request, False)
    chosen = {name: flag("binary_data", given, default) for name, given in outputs.items()}
    return frozenset([name for name in OUTPUTS if chosen.get(name, default)])


def refuse_unknown(
    parameters: Iterable[str], known: Iterable[str], kind: str, name: str = "", *, passed_over: Iterable[str] = ()
) -> None:
    """Check that all parameters are known; ``kind`` and ``name`` say in the error message whose they are.

    Raises:
        InvalidParameter: a parameter is neither in ``known`` nor in ``passed_over``, which the message does not name.

    """
    if unknown := sorted(set(parameters) - {*known, *passed_over}):
        supported = ", ".join(known) or "none"
        owner = f"{kind} {shown(name)}" if name else kind
        raise InvalidParameter(f"parameter {shown(unknown[0])} of {owner} is not supported; supported are: {supported}")


def _whole(name: str, parameters: Parameters) -> int:
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise InvalidParameter(f"{name} is {typed(value)}; send a whole number from 0 to {MOST}")
    return value


def _arrays(outputs: Iterable[str]) -> tuple[Output, ...]:
    wanted = tuple(outputs)
    for name in wanted:
        if name not in OUTPUTS or wanted.count(name) > 1:
            raise InvalidRequest(
                f"output {shown(name)} is unknown or given twice; the outputs are {' and '.join(OUTPUTS)}"
            )
    return tuple(map(Output, wanted or OUTPUTS))
