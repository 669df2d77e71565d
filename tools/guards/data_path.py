"""Guards of the data path: batches, frames, streams, memory."""

from tools.guards.guard import Guard

DATA_PATH = [
    Guard(
        "a frame kills the worker",
        "service/batching/batcher.py",
        """except Exception as error:
            reason""",
        """except ZeroDivisionError as error:
            reason""",
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
        "who left is computed all the same",
        "service/batching/batcher.py",
        "self._queue.discard(entry)",
        "pass",
        "batching/test_batcher.py::test_a_cancelled_item_leaves_the_queue_at_once_and_is_never_computed",
    ),
    Guard(
        "SIGTERM closes at once",
        "service/app.py",
        "code = await drain(service)",
        "code = 0",
        "robustness/test_shutdown.py::test_sigterm_under_load_turns_readiness_off_answers_what_was_accepted_and_ends_with_0",
    ),
    Guard(
        "overload is taken in",
        "service/batching/admission.py",
        """        if self._is_full():
            raise QueueFull""",
        """        if False:
            raise QueueFull""",
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
        "who never reads is read from without end",
        "service/streams/stream.py",
        "await self._may_read.acquire()",
        "pass",
        "transports/test_stream.py::test_under_every_a_client_that_does_not_read_is_not_read_from",
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
        "    trim_later()",
        "    pass",
        "robustness/test_memory.py::test_holes_are_given_back_after_a_reload",
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
        "a device that fails on everything stays in service",
        "service/batching/batcher.py",
        "if self._failed >= MAX_FAILED and self._probe is not None:",
        "if False:",
        "batching/test_device_faults.py::"
        "test_a_device_that_fails_on_everything_counts_as_dead_once_it_fails_on_the_probe",
    ),
    Guard(
        "an idle slot keeps the pictures of those who have left",
        "service/batching/batcher.py",
        "del batch  # or",
        "pass  # or",
        "batching/test_device_faults.py::test_an_idle_slot_keeps_no_item_whose_client_has_left",
    ),
    Guard(
        "members of a batch that is repeated are never told that the service stops",
        "service/batching/batcher.py",
        """        except asyncio.CancelledError:
            _fail(batch, _stopped())
            raise
        return thread""",
        """        except asyncio.CancelledError:
            raise
        return thread""",
        "batching/test_device_faults.py::"
        "test_when_the_batcher_ends_while_a_failed_batch_is_repeated_every_member_is_told",
    ),
    Guard(
        "archives wait for ever behind requests",
        "service/batching/queue.py",
        "if urgent and not self._archive_is_starved(now):",
        "if urgent:",
        "batching/test_fairness.py::test_an_archive_goes_on_now_and_then_behind_requests_without_a_pause",
    ),
    Guard(
        "requests wait for ever behind live video",
        "service/batching/queue.py",
        "batch[-1] = single",
        "pass",
        "batching/test_fairness.py::test_a_request_goes_on_now_and_then_behind_live_video_without_a_pause",
    ),
    Guard(
        "who is first in line for a place loses it to one who comes later",
        "service/batching/admission.py",
        "return self.taken + self._promised >= self.limit",
        "return self.taken >= self.limit",
        "batching/test_fairness.py::test_a_place_that_is_free_again_belongs_to_the_first_in_line",
    ),
    Guard(
        "one answer mixes two sets of weights",
        "service/frames/frame.py",
        "if answer.model.weights_sha256 != newest]",
        "if False]",
        "batching/test_replaced_weights.py::test_the_outputs_of_an_inference_request_come_from_the_same_weights",
    ),
    Guard(
        "smoothing mixes logits of two sets of weights",
        "service/streams/stream.py",
        "self._filter.restart()",
        "pass",
        "batching/test_replaced_weights.py::test_smoothing_begins_anew_with_new_weights",
    ),
    Guard(
        "a stream that its client left keeps its pictures",
        "service/streams/stream.py",
        "del expiry",
        "pass",
        "robustness/test_held_memory.py::test_a_large_message_is_let_go_once_its_call_is_over",
    ),
    Guard(
        "a frame that was refused counts as one that failed",
        "service/frames/segmenter.py",
        "if frame.begun:  # otherwise it was refused, and is counted by cause",
        "if True:",
        "robustness/test_faults.py::test_a_full_queue_refuses_before_it_decodes",
    ),
    Guard(
        "a DICOM video cannot be segmented again after a change of weights",
        "service/dicom/video.py",
        "if index < self._decoded and index not in self._kept:",
        "if False:",
        "dicom/test_video.py::test_frames_may_be_asked_for_again_as_after_a_change_of_weights",
    ),
    Guard(
        "a DICOM video stays in memory until a garbage collection",
        "service/dicom/video.py",
        "self._container.close()",
        "pass",
        "dicom/test_video.py::test_a_video_is_freed_without_a_garbage_collection",
    ),
]
