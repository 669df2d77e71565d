"""A frame of a video stream: what came, what becomes of it, and what its answer says."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from service.errors import ServiceError
from service.frames.frame import Frame, Segmentation
from service.streams.temporal import Status


class Drop(StrEnum):
    """Why a frame was not looked at; it was never decoded."""

    STALE = "stale"  # a newer frame replaced it
    DEADLINE = "deadline"  # its time passed while it waited
    OVERLOAD = "overload"  # the whole service is full


Outcome = Segmentation | Drop | ServiceError


@dataclass(eq=False, slots=True, kw_only=True)
class StreamFrame(Frame):
    """One frame from its arrival to its one answer; an encoded picture stays encoded until the frame's turn."""

    frame_id: int  # the client's own; only echoed
    capture_time_us: int | None = None  # by any clock of the client that only goes forward
    received: float = 0.0  # monotonic clock, seconds
    captured: float = 0.0  # the same, without the constant part of the network's delay
    expires: float | None = None  # loop time, seconds: an answer is of no use after it
    had_turn: bool = False  # it was worked on
    before: asyncio.Event | None = None  # set once the frame before is through the device, or failed
    off_device: asyncio.Event = field(default_factory=asyncio.Event)  # the same of this frame
    outcome: Outcome | None = None
    age_seconds: float = 0.0  # from capture to answer
    window_seconds: float = 0.0  # that it waited for its turn, or until it was dropped
    status: Status = field(default_factory=Status)  # where the network has seen it
