"""Logging: text for people, or one JSON object per line for machines. Pictures and file names are never logged."""

import json
import logging
import sys
import time
import warnings
from contextvars import ContextVar

QUIETER = {  # the lowest levels at which loggers of libraries are logged
    "PIL": logging.WARNING,
    "asyncio": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "pynetdicom": logging.ERROR,  # below, it tells of each message, and warns of faults of peers
    "pynetdicom.dul": logging.CRITICAL,  # shows a traceback for each peer that vanishes
    "pynetdicom.fsm": logging.CRITICAL,  # shows one for each that breaks the rules; its thread ends, which is told
    "uvicorn.error": logging.ERROR,  # warns of clients' faults, which this service answers and logs itself
    "python_multipart": logging.CRITICAL,  # quotes bytes of the request body
}

UNSENT = "ExecuteBatchError raised in core by servicer method "  # grpcio's, with a traceback
TOLD = (  # errors of uvicorn, at the end of a drain and of an archive that breaks off; the service itself tells of both
    "Cancel %s running task(s)",
    "ASGI callable returned without completing response",
)

request_id: ContextVar[str] = ContextVar("request_id", default="")  # of the call that is served in this task


class JsonFormatter(logging.Formatter):
    """Formats records as JSON, one object per line, with the ids of the current request and trace.

    ``process`` tells which of several processes wrote a line. The ``fields`` of a record become members: in the access
    log ``transport``, ``call``, ``code`` and ``duration_ms``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the JSON object of a record; times are in UTC, exceptions under ``exception``."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if call := request_id.get():
            from service.observability.tracing import (
                current_trace_id,  # a call has imported it; the help of a command not
            )

            line["request_id"] = call
            if trace_id := current_trace_id():
                line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str, style: str) -> None:
    """Send all logs to standard error, at ``level`` and in ``style`` (text or json)."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if style == "json" else plain)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_of_who_left)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # are about clients' pictures, which this service answers itself
    for name, least in QUIETER.items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelName(level.upper())))


def _of_who_left(record: logging.LogRecord) -> bool:
    """Make one line of gRPC's traceback for a unary answer that it could not send, which it reports to nobody else."""
    if not str(record.msg).startswith(UNSENT):
        return True
    record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
    record.msg = str(record.msg).replace(UNSENT, "the client left before it had its answer: ")
    return logging.getLogger().isEnabledFor(logging.INFO)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(TOLD)
