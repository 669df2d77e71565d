"""Guards of the client and of the commands."""

from tools.guards.guard import Guard

PROGRAMS = [
    Guard(
        "probabilities are given as a mask",
        "client/pranet_client/connection.py",
        'or self.outcome != "answered" or not self.has_mask:',
        'or self.outcome != "answered":',
        "client/test_pictures.py::test_only_a_mask_is_given_as_a_mask",
    ),
    Guard(
        "a stream whose refusal gRPC lost ends in silence",
        "client/pranet_client/async_client.py",
        "if live and not asks_again:",
        "if live:",
        "client/test_broken_streams.py::test_a_refusal_whose_status_grpc_lost_is_asked_for_again",
    ),
    Guard(
        "a batch that breaks off looks complete",
        "client/pranet_client/async_client.py",
        "if answered < len(contents):",
        "if False:",
        "client/test_requests.py::test_a_batch_that_breaks_off_without_a_sign_is_noticed",
    ),
    Guard(
        "who waits for a client that is closed gets a cancellation",
        "client/pranet_client/loop_thread.py",
        "if isinstance(error, asyncio.CancelledError) and self._closed:",
        "if False:",
        "client/test_endings.py::test_a_client_that_is_closed_in_another_thread_says_so_to_those_that_wait",
    ),
    Guard(
        "a pool of processes hangs for an error that cannot be unpickled",
        "client/pranet_client/errors.py",
        "super().__init__(cause, detail)",
        'super().__init__(f"{cause}: {detail}")',
        "client/test_requests.py::test_an_error_reaches_the_parent_of_a_pool_of_processes",
    ),
    Guard(
        "pictures fail since the queue is short",
        "service/commands/segment/session.py",
        "options=self._asked, waits_for_place=True",
        "options=self._asked",
        "commands/test_segment_runs.py::test_a_short_queue_costs_no_picture",
    ),
    Guard(
        "many large files are in memory at once",
        "service/commands/segment/session.py",
        "async with one_large if is_large else contextlib.nullcontext():",
        "if True:",
        "commands/test_segment_runs.py::test_large_files_are_held_in_memory_one_by_one",
    ),
    Guard(
        "a password in an address is shown",
        "service/commands/video/live.py",
        'rest.rpartition("@")[2]',
        'rest.partition("@")[2]',
        "commands/test_live_sources.py::test_an_address_is_shown_without_its_secrets",
    ),
    Guard(
        "a camera sends more frames than wanted",
        "service/commands/video/source.py",
        "_thinned(source.pictures, fps) if source.live and fps else source.pictures",
        "source.pictures",
        "commands/test_live_sources.py::test_of_a_camera_no_more_frames_are_sent_than_wanted",
    ),
    Guard(
        "a written video is squeezed",
        "service/commands/video/writer.py",
        "context.sample_aspect_ratio = self._pixel_aspect",
        "pass",
        "commands/test_video.py::test_a_written_video_has_the_pixel_aspect_of_its_source",
    ),
]
