"""A frame of a video stream, with its times and its outcome."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from service.errors import ServiceError
from service.frames.frame import Frame, Inference, Segmentation
from service.streams.temporal import Status


class Drop(StrEnum):
    """Why a frame was dropped; a dropped frame was never decoded."""

    STALE = "stale"  # a newer frame replaced it
    DEADLINE = "deadline"  # its deadline passed while it waited
    OVERLOAD = "overload"  # the queue is full, or the token's rate limit is reached


Outcome = Segmentation | Drop | ServiceError


@dataclass(eq=False, slots=True, kw_only=True)
class StreamFrame(Frame):
    """One frame from its arrival to its answer; the picture stays encoded until the frame has its turn."""

    frame_id: int  # chosen by the client and echoed
    capture_time_us: int | None = None  # by any monotonic clock of the client
    presentation_time_us: int | None = None  # of a recording: its time in it
    received: float = 0.0  # monotonic clock, seconds
    captured: float = 0.0  # monotonic clock, seconds; see ``service.streams.capture_clock``
    expires: float | None = None  # deadline of the answer; loop time, seconds
    moment: float = 0.0  # what smoothing counts by, seconds; see ``Stream._accept``
    had_turn: bool = False  # of being processed; others were dropped while they waited for it
    before: tuple[asyncio.Event, ...] = ()  # ``off_device`` of frames with earlier turns that had not left it then
    off_device: asyncio.Event = field(default_factory=asyncio.Event)  # set once it has left the device or failed
    compared: asyncio.Event = field(default_factory=asyncio.Event)  # of a stream with reuse: set once it has been
    inferred: asyncio.Future[Inference] | None = None  # of a frame that later ones may be answered from
    reused: bool = False  # its logits are those of an earlier frame
    outcome: Outcome | None = None
    age_seconds: float = 0.0  # from capture to answer
    window_seconds: float = 0.0  # time that it waited for its turn, or until it was dropped without one
    status: Status = field(default_factory=Status)  # filled in after inference
