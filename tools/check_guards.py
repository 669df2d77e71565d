"""``make guards-check``: mutation tests of the lines that prevent known failures of other servers.

Each ``Guard`` names a failure, the line that prevents it here, and the test that covers it. In a copy of the project
the line is replaced, and the test must fail; with all lines in place, all tests must pass.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pictures import ROOT

PATIENCE = 300.0  # seconds; a test that hangs longer without its guard has failed
FAILED = 1  # pytest's exit code if a test failed; other codes mean that none ran


@dataclass(frozen=True)
class Guard:
    """A line of the service, its replacement, and the test that must then fail."""

    rules_out: str
    file: str
    line: str
    without: str
    test: str


GUARDS = [
    Guard(
        "a frame kills the worker",
        "service/batching/batcher.py",
        "except Exception as error:",
        "except ZeroDivisionError as error:",
        "batching/test_batcher.py::test_a_poison_item_fails_alone_and_its_batch_mates_are_answered",
    ),
    Guard(
        "health stays green without a worker",
        "service/batching/batcher.py",
        "lambda _: self.dead.set()",
        "lambda _: None",
        "batching/test_batcher.py::test_inference_counts_as_dead_once_a_slot_has_ended_by_a_fault_of_its_own",
    ),
    Guard(
        "one bad item fails its batch-mates",
        "service/batching/batcher.py",
        "return await self._repeat_singly(thread, number, batch, reason)",
        "_fail(batch, InferenceFailed(reason)); return thread",
        "robustness/test_faults.py::test_a_frame_that_the_network_raises_on_fails_alone",
    ),
    Guard(
        "a stream never looks at a still picture again",
        "service/streams/reuse.py",
        "if max(abs(frame.moment - last.moment), frame.received - last.received) > MOST_SECONDS:",
        "if False:",
        "transports/test_stream_rpc.py::test_after_a_second_the_same_picture_is_inferred_again",
    ),
    Guard(
        "frames wait for the logits of one that failed",
        "service/streams/reuse.py",
        "frame.inferred.cancel()  # has no effect once it has a result",
        "pass",
        "transports/test_stream_rpc.py::test_a_frame_is_inferred_if_inference_failed_on_the_one_that_showed_the_same",
    ),
    Guard(
        "an undefined answer counts as one",
        "service/frames/segmenter.py",
        "if not np.isfinite(logits).all():",
        "if False:",
        "robustness/test_faults.py::test_a_frame_without_a_finite_answer_fails_alone",
    ),
    Guard(
        "time-outs are noticed when the scheduler wakes",
        "service/batching/batcher.py",
        "asyncio.timeout_at(entry.deadline)",
        "asyncio.timeout(None)",
        "batching/test_batcher.py::test_a_waiting_item_expires_by_its_own_timer_while_the_device_is_busy",
    ),
    Guard(
        "decoding has no time limit",
        "service/frames/segmenter.py",
        "async with asyncio.timeout_at(deadline):",
        "async with asyncio.timeout(None):",
        "transports/test_stream.py::test_a_frame_whose_decoding_takes_too_long_fails_in_time",
    ),
    Guard(
        "work goes on after the client left",
        "service/http/protocol.py",
        "request.cancel()",
        "pass",
        "robustness/test_faults.py::test_the_work_of_a_client_that_left_is_dropped",
    ),
    Guard(
        "who left is computed all the same",
        "service/batching/batcher.py",
        "self._queue.discard(entry)",
        "pass",
        "batching/test_batcher.py::test_a_cancelled_item_leaves_the_queue_at_once_and_is_never_computed",
    ),
    Guard(
        "SIGTERM closes at once",
        "service/app.py",
        "code = await _drain(service)",
        "code = 0",
        "robustness/test_shutdown.py::test_sigterm_under_load_turns_readiness_off_answers_what_was_accepted_and_ends_with_0",
    ),
    Guard(
        "several workers keep several sets of metrics",
        "service/http/server.py",
        "workers=1,",
        "",
        "transports/test_service.py::test_every_request_is_counted_in_the_one_registry_that_is_scraped",
    ),
    Guard(
        "overload is taken in",
        "service/batching/admission.py",
        "        if self.taken >= self.limit:",
        "        if False:",
        "robustness/test_faults.py::test_a_full_queue_refuses_before_it_decodes",
    ),
    Guard(
        "overload is decoded before it is refused",
        "service/frames/segmenter.py",
        "self._admission.take(frame)",
        "source = frame.source\n"
        "                await self._run(frame, prepare, frame, self._max_image_pixels)\n"
        "                frame.source = source\n"
        "                self._admission.take(frame)",
        "robustness/test_faults.py::test_a_full_queue_refuses_before_it_decodes",
    ),
    Guard(
        "overload has the wrong status",
        "service/errors.py",
        'status, grpc, slug = 429, StatusCode.RESOURCE_EXHAUSTED, "queue-full"',
        'status, grpc, slug = 503, StatusCode.UNAVAILABLE, "queue-full"',
        "robustness/test_faults.py::test_a_full_queue_refuses_before_it_decodes",
    ),
    Guard(
        "errors keep the pictures that they were about",
        "service/tasks.py",
        "error.__traceback__ = error.__cause__ = error.__context__ = None",
        "pass",
        "robustness/test_held_memory.py",
    ),
    Guard(
        "who never reads is read from without end",
        "service/streams/stream.py",
        "await self._may_read.acquire()",
        "pass",
        "transports/test_stream.py::test_under_every_a_client_that_does_not_read_is_not_read_from",
    ),
    Guard(
        "a faulty object costs the others of its series",
        "service/pacs/node.py",
        "if 1 < len(good) < len(group):",
        "if False:",
        "pacs/test_nothing_is_lost.py::test_one_object_with_damaged_pixels_is_kept_aside_and_the_others_are_segmented",
    ),
    Guard(
        "a kill between two steps stores a Segmentation twice",
        "service/pacs/spool.py",
        'for folder in self._received.glob(f"*{DONE}"):',
        "for folder in ():",
        "pacs/test_spool.py::test_what_was_segmented_is_not_segmented_again",
    ),
    Guard(
        "what an operator put back ends the node",
        "service/pacs/node.py",
        "except Exception:",
        "except ZeroDivisionError:",
        "pacs/test_nothing_is_lost.py::test_what_an_operator_puts_back_is_tried_again_whatever_it_is",
    ),
    Guard(
        "a full disk ends the node",
        "service/pacs/node.py",
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "pacs/test_nothing_is_lost.py::test_a_full_disk_delays_segmentations_and_loses_no_object",
    ),
    Guard(
        "pixels that a decoder made up get a mask",
        "service/frames/decoded_video.py",
        "self._made_up, self._cut = True,",
        "self._made_up, self._cut = False,",
        "commands/test_video.py::test_a_cut_packet_damages_its_frame_and_not_those_that_threads_deliver_after_it",
    ),
    Guard(
        "a damaged packet ends a video",
        "service/frames/decoded_video.py",
        "if lost is None:",
        "if True:",
        "commands/test_video.py::test_a_damaged_video_is_segmented_to_its_end_but_for_pixels_that_a_decoder_made_up",
    ),
    Guard(
        "a film that is sought is called frozen",
        "service/frames/quality.py",
        "last is None or back or",
        "last is None or",
        "unit/test_temporal.py::test_after_a_step_back_in_a_recording_stillness_is_counted_anew",
    ),
    Guard(
        "a failed batch keeps weights that were replaced",
        "service/batching/batcher.py",
        "drop_tracebacks(error)  # its frames",
        "pass  # its frames",
        "batching/test_batcher.py::test_a_batch_that_failed_keeps_nothing_in_memory_until_garbage_is_collected",
    ),
    Guard(
        "weights that are replaced leave holes in memory",
        "service/memory.py",
        "mallopt(MMAP_THRESHOLD, HEAP_BYTES)",
        "pass",
        "robustness/test_memory.py::test_a_second_frame_needs_no_new_pages_and_weights_get_memory_that_goes_back",
    ),
    Guard(
        "each reload fills another heap",
        "service/memory.py",
        "mallopt(ARENA_MAX, ARENAS)",
        "pass",
        "robustness/test_memory.py::test_threads_share_few_heaps",
    ),
    Guard(
        "replaced weights leave holes in memory for good",
        "service/app.py",
        "        trim_later()",
        "        pass",
        "robustness/test_memory.py::test_holes_are_given_back_after_a_reload",
    ),
    Guard(
        "a header with an open quote takes seconds",
        "service/http/accept.py",
        """\\.?)*"?'""",
        """\\.)*"'""",
        "http/test_accept.py::test_quotes_that_are_not_closed_cost_little",
    ),
    Guard(
        "an archive that waits for another one past its time is cut off",
        "service/archives/archive.py",
        "async with asyncio.timeout_at(deadline):",
        "if True:",
        "transports/test_archives.py::test_an_archive_that_waits_for_another_past_its_time_answers_each_picture",
    ),
    Guard(
        "a frame of a token without requests left fails instead of being dropped",
        "service/streams/stream.py",
        "if expiry.expired():",
        "if False:",
        "transports/test_stream.py::"
        "test_a_frame_that_waits_for_its_tokens_rate_past_its_deadline_is_dropped_and_costs_nothing",
    ),
    Guard(
        "a request is lost on a connection that closes",
        "service/http/protocol.py",
        "[*self.server_state.default_headers, CLOSE]",
        "self.server_state.default_headers",
        "robustness/test_body_size.py::test_an_early_refusal_tells_a_client_to_send_its_next_request_elsewhere",
    ),
    Guard(
        "a WebSocket that comes during the shutdown is a fault of the service",
        "service/http/websocket_protocol.py",
        "if self.handshake_complete or not self.handshake_initiated:",
        "if True:",
        "transports/test_websocket.py::"
        "test_a_browser_that_comes_while_connections_are_closed_is_told_that_the_service_stops",
    ),
    Guard(
        "who does not read the first answer of a stream is not told its end",
        "service/rpc/call.py",
        "if call.traceparent or call.is_stream:",
        "if call.traceparent:",
        "robustness/test_slow_clients.py::test_a_grpc_stream_whose_answers_are_not_read_ends",
    ),
    Guard(
        "who leaves before the status of a call is an error in the log",
        "service/rpc/call.py",
        "except grpc.aio.InternalError:",
        "except ZeroDivisionError:",
        "robustness/test_slow_clients.py::test_a_grpc_stream_whose_answers_are_not_read_ends",
    ),
    Guard(
        "counters go backwards when a process is replaced",
        "service/observability/scrape.py",
        "self._past = _counted(pickle.loads(last))",
        "pass",
        "processes/test_sharing.py::test_a_scrape_keeps_what_ended_processes_counted_and_says_which_does_not_answer",
    ),
    Guard(
        "a process that does not answer a scrape is not missed",
        "service/observability/scrape.py",
        'family.add_sample(UP, {"process": str(index)}, 0.0)',
        "pass",
        "processes/test_sharing.py::test_a_scrape_keeps_what_ended_processes_counted_and_says_which_does_not_answer",
    ),
    Guard(
        "what a killed process held is never given back",
        "service/processes/group.py",
        "self.streams.clear(index)",
        "pass",
        "processes/test_sharing.py::test_what_a_process_held_is_free_once_it_has_ended",
    ),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for name in ("model", "service", "client", "proto", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(".*", "__pycache__", "node_modules"))
    (copy / "weights").symlink_to(ROOT / "weights")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def outcome(project: Path, *tests: str) -> int:
    """Run tests and return pytest's exit code; a test that hangs counts as failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    process = subprocess.Popen([*command, *(f"tests/{test}" for test in tests)], cwd=project)
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return FAILED


def test_with_every_guard_in_place_the_tests_pass(project: Path) -> None:
    assert outcome(project, *sorted({guard.test for guard in GUARDS})) == 0


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.rules_out)
def test_a_missing_guard_is_noticed(project: Path, guard: Guard) -> None:
    path = project / guard.file
    whole = path.read_text()
    assert whole.count(guard.line) == 1
    path.write_text(whole.replace(guard.line, guard.without))
    try:
        assert outcome(project, guard.test) == FAILED
    finally:
        path.write_text(whole)
