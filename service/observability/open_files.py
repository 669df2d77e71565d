"""Tells when no file descriptor is left: nothing else does, since libuv then closes each new connection at once."""

import asyncio
import errno
import logging
import math
import os
import resource
import time
from typing import NoReturn

CHECK_SECONDS = 1.0
AGAIN_SECONDS = 60.0  # between two lines of the log

log = logging.getLogger(__name__)


async def watch() -> NoReturn:
    """Log when no file descriptor is left, once a minute at most."""
    told = -math.inf
    while True:
        reason = _why_none_is_left()
        if reason and time.monotonic() - told >= AGAIN_SECONDS:
            told = time.monotonic()
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.error(
                "no file descriptor is left (%s; the limit of this process is %d), so new connections are closed, or "
                "wait; raise the limit of open files: ulimit -n, or LimitNOFILE of systemd",
                reason,
                limit,
            )
        await asyncio.sleep(CHECK_SECONDS)


def _why_none_is_left() -> str | None:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return os.strerror(error.errno) if error.errno in (errno.EMFILE, errno.ENFILE) else None
    return None
