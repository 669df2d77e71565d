"""How much work may be accepted and not yet be on the device: counted before anything is decoded."""

from types import TracebackType
from typing import Self

from service.errors import QueueFull


class Admission:
    """A bounded number of places; ``with admission.place() as place`` takes one or raises ``QueueFull``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def place(self) -> "Place":
        """Return a place that is taken on entry and given back once, by ``release`` or on exit."""
        return Place(self)


class Place:
    """One accepted frame that is not yet on the device."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = False

    def __enter__(self) -> Self:
        """Take the place.

        Raises:
            QueueFull: every place is taken.

        """
        if self._admission.taken >= self._admission.limit:
            raise QueueFull(
                f"{self._admission.limit} frames wait already (MAX_QUEUE_SIZE); retry, or send fewer at once"
            )
        self._admission.taken += 1
        self._held = True
        return self

    def release(self) -> None:
        """Give the place back: the frame is on the device now. Later calls do nothing."""
        if self._held:
            self._held = False
            self._admission.taken -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
