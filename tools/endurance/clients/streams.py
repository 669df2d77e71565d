"""Video streams over gRPC and WebSocket, whose every frame is accounted for."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.endurance.book import UNCOUNTED, Tally
from tools.endurance.clients.calls import LOST_CAUSES, NOT_REACHED, PICTURES
from tools.endurance.clients.lines import LINES, LOST, Answer, End, GrpcLine, Line, SocketLine
from tools.endurance.clients.replies import WORK
from tools.endurance.life import Life

OUTCOMES = ("answered", "stale", "deadline", "overload", "failed", "abandoned", UNCOUNTED)
LEAVING_SECONDS = 10.0  # within which the service notices that a client has left


@dataclass
class Session:
    """One stream from its opening to its end."""

    life: Life
    kind: str
    policy: str
    sent: dict[int, float] = field(default_factory=dict)  # monotonic seconds, by frame
    answered: list[Answer] = field(default_factory=list)
    end: End | None = None
    opened: bool = False
    refused: bool = False  # the connection, so that the service knows nothing of the stream
    has_left: bool = False

    async def run(self, pace: Callable[[], float], seconds: float, *, leaves: bool) -> None:
        """Send frames at a pace for a time; then end the stream, or leave it without a word."""
        line: Line | None = None
        self.began = time.monotonic()
        try:
            async with LINES[self.kind](self.life, self.policy) as line:
                self.opened = True
                receiving = asyncio.create_task(self._receive(line))
                sending = asyncio.create_task(self._send(line, pace, self.began + seconds))
                await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and not receiving.done():
                    if leaves:
                        self.has_left = True
                        line.leave()
                    else:
                        with contextlib.suppress(*LOST):
                            await line.finish()
                await receiving
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except LOST as error:
            self.refused = isinstance(error, ConnectionRefusedError)
        self.ended = time.monotonic() + LEAVING_SECONDS * self.has_left

    async def _send(self, line: Line, pace: Callable[[], float], until: float) -> None:
        with contextlib.suppress(*LOST):
            for frame_id in itertools.count(1):
                if time.monotonic() >= until or self.life.over.is_set():
                    return
                self.sent[frame_id] = time.monotonic()
                await line.send(frame_id, next(PICTURES))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pace()):
                        await self.life.over.wait()

    async def _receive(self, line: Line) -> None:
        async for each in line.answers():
            if isinstance(each, End):
                self.end = each
            else:
                self.answered.append(each)

    def settle(self, tally: Tally) -> None:
        """Record what became of the stream and of each of its frames."""
        line = {"gRPC": GrpcLine, "WebSocket": SocketLine}[self.kind]
        name = f"{self.policy} stream over {self.kind}"
        end = self.end or End()
        is_known = bool(end.code) and not self.has_left
        self._note_call(name, line, end, is_known=is_known, tally=tally)
        if [each.frame_id for each in self.answered] != list(self.sent)[: len(self.answered)]:
            self.life.breaks(f"the answers of {name} are not those of its frames in order")
        for each in self.answered:
            self._note_answer(name, each, tally)
        open_frames = list(self.sent)[len(self.answered) :]
        if open_frames and is_known and end.code == line.normal:
            self.life.breaks(f"{len(open_frames)} frames of {name} have no answer")
        for frame_id in open_frames:
            self._note_open(name, frame_id, is_drained=is_known and end.cause == "draining", tally=tally)

    def _note_call(self, name: str, line: type, end: End, *, is_known: bool, tally: Tally) -> None:
        note, life = self.life.book.note, self.life
        if is_known:
            note(name, self.began, self.ended, **{line.transport: end.code})
            note(f"cause of {name}", self.began, self.ended, rejected=end.cause or UNCOUNTED)
            tally.add(name, f"ended: {end.cause or 'normally'}")
            if end.code != line.normal and not (end.cause == "draining" and life.is_ending(self.began)):
                life.breaks(f"one {name} ends with {end.code} {end.cause}")
        elif self.has_left:
            codes = {line.left, line.normal} | ({line.drained, UNCOUNTED} if life.ending else set())
            note(name, self.began, self.ended, **{line.transport: codes})
            causes = LOST_CAUSES if life.ending else ("client-left", UNCOUNTED)
            note(f"cause of {name}", self.began, self.ended, rejected=causes)
            tally.add(name, "left by the client")
        elif self.refused and life.ending:
            tally.add(name, NOT_REACHED)
        else:
            codes = (line.normal, line.left, line.drained, UNCOUNTED)
            note(name, self.began, self.ended, **{line.transport: codes})
            note(f"cause of {name}", self.began, self.ended, rejected=LOST_CAUSES)
            cut = bool(life.ending) or life.server.process.poll() is not None
            tally.add(name, f"cut off by {life.ending or 'an end'}" if cut else "lost")
            if not cut:
                life.breaks(f"one {name} is lost")

    def _note_answer(self, name: str, answer: Answer, tally: Tally) -> None:
        began, ended, note = self.sent[answer.frame_id], answer.at, self.life.book.note
        work = {"answered": "answered", "overload": "failed", "failed": "failed"}.get(answer.outcome, UNCOUNTED)
        note(f"frame of {name}", began, ended, received="frame", frames=answer.outcome, work=work)
        note(f"cause of a frame of {name}", began, ended, rejected=answer.cause or UNCOUNTED)
        tally.add(f"frames of {name}", answer.outcome)
        is_late = self.policy == "latest" and answer.cause == "deadline-exceeded"  # it had its turn before
        if answer.outcome in ("failed", "overload") and not is_late:
            self.life.breaks(f"a frame of {name} is {answer.outcome}: {answer.cause}")

    def _note_open(self, name: str, frame_id: int, *, is_drained: bool, tally: Tally) -> None:
        began, note = self.sent[frame_id], self.life.book.note
        if is_drained:  # each frame that was received is answered, so these were not
            tally.add(f"frames of {name}", "not received by a process that ended")
            return
        note(f"frame of {name}", began, self.ended, received=("frame", UNCOUNTED), frames=OUTCOMES, work=WORK)
        tally.add(f"frames of {name}", "left by the client" if self.has_left else f"cut off by {self.life.ending}")
