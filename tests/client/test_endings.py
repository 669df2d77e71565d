"""Whatever ends a stream of the client, its caller learns it, and nothing is left behind."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from pranet_client import AsyncClient, Client, ClientError, InvalidInput, RawPicture, Reply, StreamConfig, VideoFrame
from pranet_client.sources import in_thread
from tests.support.patching import Patches
from tests.support.pictures import encoded, red_box
from tests.support.predictors import PATIENCE, GatedPredictor
from tests.support.serving import Running, serving, until

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
EVERY = StreamConfig(policy="POLICY_EVERY")


class Unplugged(Exception):
    """What a camera of the caller raises."""


def frame(number: int) -> VideoFrame:
    return VideoFrame(number, PICTURE, monotonic())


def raising(error: BaseException) -> Callable[[], Iterator[VideoFrame]]:
    def frames() -> Iterator[VideoFrame]:
        yield frame(0)
        raise error

    return frames


def yielding(wrong: Any) -> Callable[[], Iterator[Any]]:
    return lambda: iter([frame(0), wrong])


WRONG: dict[str, tuple[Callable[[], Any], type[BaseException], str]] = {
    "object": (yielding(object()), InvalidInput, "object"),
    "none": (yielding(None), InvalidInput, "NoneType"),
    "no-file": (yielding(VideoFrame(1, "frame.jpg", 0.0)), InvalidInput, "frame.jpg cannot be read"),  # type: ignore[arg-type]
    "raw-of-str": (yielding(VideoFrame(1, RawPicture(None, 1, 1, 3, "abc"), 0.0)), InvalidInput, "wrong value"),  # type: ignore[arg-type]
    "negative-id": (yielding(VideoFrame(-1, PICTURE, 0.0)), InvalidInput, "wrong value"),
    "time-nan": (yielding(VideoFrame(1, PICTURE, float("nan"))), InvalidInput, "wrong value"),
    "time-none": (yielding(VideoFrame(1, PICTURE, None)), InvalidInput, "wrong value"),  # type: ignore[arg-type]
    "exception": (raising(Unplugged("the camera")), Unplugged, "the camera"),
    "interrupt": (raising(KeyboardInterrupt()), KeyboardInterrupt, "^$"),
    "exit": (raising(SystemExit(3)), SystemExit, "3"),
    "cancelled": (raising(asyncio.CancelledError("theirs")), asyncio.CancelledError, "theirs"),
    "one-picture": (lambda: PICTURE, InvalidInput, r"\[picture\]"),
    "no-iterable": (lambda: 5, InvalidInput, "int is no iterable"),
}


async def as_async(frames: Any) -> AsyncIterator[Any]:
    for each in frames:
        yield each


@contextlib.asynccontextmanager
async def nothing_left(it: Running) -> AsyncIterator[None]:
    """Check that the block leaves no task here, no thread, and no stream in the service."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield
    await until(
        lambda: (
            not it.service.streams.active
            and not [task for task in asyncio.all_tasks() - tasks if "pranet_client" in str(task.get_coro())]
        )
    )
    await until(
        lambda: not [each.name for each in set(threading.enumerate()) - threads if each.name.startswith("pranet")]
    )


def address(it: Running) -> str:
    return f"127.0.0.1:{it.grpc_port}"


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("iterable", ["plain", "async"])
async def test_what_ends_the_frames_ends_the_stream_after_the_answers_of_those_before(
    name: str, iterable: str, patched: Patches
) -> None:
    patched("pranet_client.connection", "LAST_ANSWERS_SECONDS", PATIENCE)  # on a busy machine an answer takes its time
    make, kind, says = WRONG[name]
    whole = make() if name in ("one-picture", "no-iterable") or iterable == "plain" else as_async(make())
    seen: list[Reply] = []
    async with serving() as it, asyncio.timeout(PATIENCE), AsyncClient(target=address(it)) as client, nothing_left(it):
        try:
            async with contextlib.aclosing(client.stream(whole, EVERY)) as replies:
                async for reply in replies:
                    seen.append(reply)
        except BaseException as error:
            raised = error
        with pytest.raises(kind, match=says):
            raise raised
    assert [reply.outcome for reply in seen] == ([] if name in ("one-picture", "no-iterable") else ["answered"])


@pytest.mark.parametrize("name", WRONG)
async def test_the_same_holds_without_an_event_loop(name: str, patched: Patches) -> None:
    patched("pranet_client.connection", "LAST_ANSWERS_SECONDS", PATIENCE)
    make, kind, says = WRONG[name]

    def run(target: str) -> tuple[BaseException | None, int]:
        seen = 0
        with Client(target=target) as client:
            try:
                for _ in client.stream(make(), EVERY):
                    seen += 1
            except BaseException as error:  # as a value: a task may not raise KeyboardInterrupt
                return error, seen
        return None, seen

    async with serving() as it, nothing_left(it):
        raised, seen = await asyncio.wait_for(asyncio.to_thread(run, address(it)), PATIENCE)
    assert type(raised) is kind
    with pytest.raises(kind, match=says):
        raise raised
    assert seen == (0 if name in ("one-picture", "no-iterable") else 1)


async def test_an_error_is_raised_after_the_frames_that_the_service_did_not_answer() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, until_ready=False) as it:
        predictor.open()
        await until(lambda: it.service.readiness.phase.name == "SERVING")
        async with asyncio.timeout(PATIENCE), AsyncClient(target=address(it)) as client, nothing_left(it):
            predictor.permits = threading.Semaphore(0)
            replies = client.stream(raising(Unplugged())(), EVERY)
            last = await anext(replies)
            assert (last.frame.frame_id, last.outcome) == (0, "lost")
            with pytest.raises(Unplugged):
                await anext(replies)
            predictor.open()


async def test_an_error_is_raised_after_the_frames_that_were_not_sent_for_want_of_a_connection() -> None:
    gone = asyncio.Event()

    async def frames() -> AsyncIterator[VideoFrame]:
        yield frame(0)
        await gone.wait()
        yield frame(1)
        raise Unplugged

    async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
        it = await stack.enter_async_context(serving())
        async with AsyncClient(target=address(it)) as client:
            replies = client.stream(frames(), EVERY)
            await anext(replies)
            await stack.aclose()
            gone.set()
            last = await anext(replies)
            assert (last.frame.frame_id, last.outcome) == (1, "lost")
            with pytest.raises(Unplugged):
                await anext(replies)


class Endless:
    """Frames of a generator that tells whether it was closed, and can block like a camera that was switched off."""

    def __init__(self, blocks_after: int = 10**9) -> None:
        self.closed = threading.Event()
        self.switched_on = threading.Event()
        self.blocks_after = blocks_after

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            for number in itertools.count():
                if number == self.blocks_after:
                    self.switched_on.wait(PATIENCE)
                yield frame(number)
        finally:
            self.closed.set()


async def test_a_loop_that_is_left_closes_stream_generator_and_thread() -> None:
    endless = Endless()
    async with serving() as it, asyncio.timeout(PATIENCE), AsyncClient(target=address(it)) as client, nothing_left(it):
        async for _ in client.stream(endless, EVERY):
            break
    assert endless.closed.is_set()


async def test_a_cancelled_caller_closes_the_stream() -> None:
    endless, first = Endless(), asyncio.Event()

    async def run(client: AsyncClient) -> None:
        async for _ in client.stream(endless, EVERY):
            first.set()

    async with serving() as it, asyncio.timeout(PATIENCE), AsyncClient(target=address(it)) as client, nothing_left(it):
        running = asyncio.create_task(run(client))
        await first.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert endless.closed.is_set()


def broken(client: Client, endless: Endless) -> None:
    for _ in client.stream(endless, EVERY):
        break


def interrupted(client: Client, endless: Endless) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        for _ in client.stream(endless, EVERY):
            raise KeyboardInterrupt


def closed_by_hand(client: Client, endless: Endless) -> None:
    replies = client.stream(endless, EVERY)
    next(replies)
    replies.close()


def client_closed_first(client: Client, endless: Endless) -> None:
    replies = client.stream(endless, EVERY)
    next(replies)
    client.close()
    with pytest.raises(ClientError, match="closed"):
        next(replies)


@pytest.mark.parametrize("leave", [broken, interrupted, closed_by_hand, client_closed_first])
async def test_every_way_out_of_a_loop_without_an_event_loop_is_clean(
    leave: Callable[[Client, Endless], None],
) -> None:
    endless = Endless()

    def run(target: str) -> None:
        with Client(target=target) as client:
            leave(client, endless)

    async with serving() as it, nothing_left(it):
        await asyncio.wait_for(asyncio.to_thread(run, address(it)), PATIENCE)
    assert endless.closed.is_set()


@pytest.mark.parametrize("turns", range(8))  # of the event loop, between the end of the generator and the cancellation
async def test_who_is_cancelled_while_a_generator_is_closed_is_cancelled(turns: int) -> None:
    loop, cancelled = asyncio.get_running_loop(), []

    def cancel(turns: int) -> None:
        if turns:
            loop.call_soon(cancel, turns - 1)
        else:
            cancelled.append(reading.cancel())

    def frames() -> Iterator[int]:
        try:
            yield from range(2)
        finally:
            loop.call_soon_threadsafe(cancel, turns)

    async def read() -> None:
        async with contextlib.aclosing(in_thread(frames())) as numbers:  # type: ignore[type-var]
            await anext(numbers)

    reading = asyncio.create_task(read())
    await asyncio.wait([reading])
    await until(lambda: bool(cancelled))
    assert cancelled == [reading.cancelled()]


async def test_a_camera_that_blocks_holds_nobody_up() -> None:
    endless = Endless(blocks_after=1)

    def run(target: str) -> None:
        with Client(target=target) as client:
            broken(client, endless)

    async with serving() as it, nothing_left(it):
        await asyncio.wait_for(asyncio.to_thread(run, address(it)), PATIENCE)
        assert not endless.closed.is_set()  # it still blocks, in a thread that no program waits for
        endless.switched_on.set()
    assert endless.closed.is_set()


async def test_a_client_is_closed_by_the_end_of_its_life_and_refuses_calls_afterwards() -> None:
    async with serving() as it, nothing_left(it):

        def run() -> Client:
            Client(target=address(it))  # nobody keeps it
            client = Client(target=address(it))
            client.close()
            client.close()
            return client

        client = await asyncio.to_thread(run)
        with pytest.raises(ClientError, match="closed"):
            client.segment(PICTURE)


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_client_that_is_closed_says_so_before_and_during_a_call(retries: int) -> None:
    predictor = GatedPredictor()
    async with serving(predictor) as it, asyncio.timeout(PATIENCE):
        client = AsyncClient(f"http://127.0.0.1:{it.port}", retries=retries)
        asking = asyncio.create_task(client.segment(PICTURE))
        await until(lambda: it.service.segmenter.in_flight == 1)
        await client.aclose()
        for call in (asking, client.segment(PICTURE)):
            with pytest.raises(ClientError, match="this client is closed"):
                await call
        predictor.open()


@pytest.mark.parametrize("work", ["segment", "stream"])
async def test_a_client_that_is_closed_in_another_thread_says_so_to_those_that_wait(work: str) -> None:
    predictor = GatedPredictor()
    async with serving(predictor) as it, asyncio.timeout(PATIENCE):
        client = Client(f"http://127.0.0.1:{it.port}", f"127.0.0.1:{it.grpc_port}")
        waiting = (
            (lambda: client.segment(PICTURE)) if work == "segment" else (lambda: [*client.stream([PICTURE], EVERY)])
        )
        asking = asyncio.create_task(asyncio.to_thread(waiting))
        await until(lambda: it.service.segmenter.in_flight == 1)
        await asyncio.to_thread(client.close)
        with pytest.raises(ClientError, match="this client is closed"):
            await asking
        predictor.open()
