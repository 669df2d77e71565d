"""What a call waits for that only its client can do. The end of the service waits for work, but not long for clients.

A call that waits for nobody is being worked on, and gets all the time of the drain.
"""

import time
from typing import NamedTuple

REQUEST, READER = "did not send their whole request", "did not read their answers"
CUT_OFF_SECONDS = 1.0  # for the error of a call that the end of the service cuts off to reach its client
STALLED_SECONDS = 5.0  # without a sign of the client


class Awaited(NamedTuple):
    """What the client of a call has not done yet; a client that goes on slowly is awaited anew each time."""

    what: str  # empty: nothing
    since: float  # time.monotonic(), seconds
    taken: int = 0  # bytes that a reader had taken when the drain last looked

    @property
    def is_stalled(self) -> bool:
        """Tell whether the client has done nothing for ``STALLED_SECONDS``."""
        return self.is_stalled_since(self.since)

    def is_stalled_since(self, moment: float) -> bool:
        """Tell the same, but count no time before a moment: a message may be on its way when the service drains."""
        return bool(self.what) and time.monotonic() - max(moment, self.since) > STALLED_SECONDS

    def after_reading(self, taken: int, aside: int = 0) -> "Awaited":
        """Await a reader anew if it has taken more bytes: one answer may take longer than ``STALLED_SECONDS``.

        Args:
            taken: by now.
            aside: how many of them may be none of the answer.

        """
        if self.what != READER or taken <= self.taken + aside:
            return self
        return Awaited(READER, time.monotonic(), taken)


NOBODY = Awaited("", 0.0)
