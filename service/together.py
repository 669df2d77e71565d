"""Tasks that end together, and leave nothing in memory but how."""

import asyncio
from types import TracebackType

from service.errors import forget_frames


class Together(asyncio.TaskGroup):
    """A task group that ends with the first error of its tasks, where asyncio's ends with a group of all errors.

    That group and the frames it comes from hold each other, and with them what the cancelled tasks were at.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            forget_frames(group)
        else:
            return
        try:
            raise first
        finally:
            del first
