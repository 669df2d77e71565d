"""Reuse of logits: a frame that shows what an earlier one showed gets that one's logits, without inference.

This is for a paused video, a frozen picture, and capture cards that send each picture twice. The noise of a camera
alone makes two frames different.

A frame is compared with the last one that the network has seen, not with the frame before it, so that small changes
cannot add up. Frames are compared in their order, so that the same video always gets the same masks.
"""

import asyncio
from dataclasses import dataclass, replace

import cv2

from model.transforms import Pixels
from service.frames.frame import Frame, Inference
from service.streams.frame import StreamFrame

MOST_LEVELS = 2  # by which any value of the network's input may differ, of 255
MOST_SECONDS = 1.0  # between both frames, by the client's clock and by ours: then new weights are in use


@dataclass(eq=False, slots=True)
class _Seen:
    """A frame that the network sees; ``inferred`` is cancelled if that fails."""

    pixels: Pixels
    moment: float
    received: float
    inferred: asyncio.Future[Inference]


class Reuse:
    """The last frame of a stream that the network has seen; under policy ``every``, its logits may be still to come."""

    def __init__(self) -> None:
        self._last: _Seen | None = None
        self._before: asyncio.Event | None = None  # set once the frame with the last turn has been compared

    async def turn(self, frame: StreamFrame) -> None:
        """Wait until the frame with the turn before has been compared, or has failed.

        A frame waits here before it has a place in the queue: it must not keep the place from the frame it waits for.
        """
        before, self._before = self._before, frame.compared
        if before is not None:
            await before.wait()

    async def recall(self, frame: Frame) -> None:
        """Set ``result`` if the frame shows what the last one showed; otherwise the frame becomes the last one."""
        assert isinstance(frame, StreamFrame)
        while (last := self._last) is not None and _shows_the_same(frame, last):
            frame.compared.set()
            await asyncio.wait([last.inferred])  # does not cancel it if the frame is cancelled
            if not last.inferred.cancelled():
                frame.result, frame.reused = last.inferred.result(), True
                return
            if self._last is last:  # otherwise another frame that has waited, too, has become the last one
                break
        assert frame.item is not None
        frame.inferred = asyncio.get_running_loop().create_future()
        self._last = _Seen(frame.item, frame.moment, frame.received, frame.inferred)
        frame.compared.set()

    def ended(self, frame: StreamFrame) -> None:
        """Let no frame wait for this one any longer, however it has ended."""
        frame.compared.set()
        if frame.inferred is not None:
            frame.inferred.cancel()  # has no effect once it has a result
            frame.inferred = None


def inferred(frame: StreamFrame) -> None:
    """Give the logits of a frame to those that wait for them; a copy, since they are a part of their whole batch."""
    if frame.inferred is not None and frame.result is not None:
        frame.inferred.set_result(replace(frame.result, logits=frame.result.logits.copy()))


def _shows_the_same(frame: StreamFrame, last: _Seen) -> bool:
    assert frame.item is not None
    if max(abs(frame.moment - last.moment), frame.received - last.received) > MOST_SECONDS:
        return False
    return int(cv2.absdiff(frame.item, last.pixels).max()) <= MOST_LEVELS
