"""The books of the endurance test explain the service's counters to the last event, or name the difference."""

from collections import Counter
from collections.abc import Iterable

import pytest

from service.observability.metrics import Metrics
from tools.endurance.balance import unexplained
from tools.endurance.book import UNCOUNTED, Book
from tools.endurance.clients.replies import Reply
from tools.endurance.counters import FAMILIES, parsed
from tools.endurance.judgement import GIVEN_UP, HANGS, INJECTED, ORPHAN, of_log
from tools.endurance.samples import Sample, growing, sixths

LEFT = {"499", "200"}


def differences(counted: dict[str, int], *codes: str | Iterable[str]) -> list[str]:
    book = Book()
    for each in codes:
        book.note("a request", 0.0, 1.0, rest=each)
    return unexplained(book.seen_by(10.0, 11.0), {"rest": counted})


def test_books_balance_whose_entries_are_all_known() -> None:
    assert differences({"200": 2, "429": 1, "504": 0}, "200", "429", "200") == []


@pytest.mark.parametrize(
    ("counted", "line"),
    [
        ({"200": 1}, "2 events are known to clients as 200, but 1 are counted"),
        ({"200": 2, "500": 1}, "1 events more are counted as 500 than clients know of; 0 are uncertain"),
    ],
)
def test_an_event_that_one_side_does_not_know_is_named(counted: dict[str, int], line: str) -> None:
    assert differences(counted, "200", "200") == [f"rest: {line}"]


def test_a_client_that_left_may_be_counted_in_either_way_but_once() -> None:
    assert differences({"499": 1}, LEFT) == differences({"200": 1}, LEFT) == []
    assert differences({"200": 1, "499": 1}, LEFT) == [
        "rest: 2 events more are counted as 200 or 499 than clients know of; 1 are uncertain"
    ]
    assert differences({}, LEFT) == ["rest: 1 events must be counted as 200 or 499, but 0 are"]


def test_entries_that_compete_for_a_counter_cannot_both_explain_it() -> None:
    assert differences({"a": 1, "b": 1}, {"a", "b"}, {"a", UNCOUNTED}) == []
    assert differences({"a": 0, "b": 2}, {"a", "b"}, {"a", UNCOUNTED}) == [
        "rest: 2 events more are counted as b than clients know of; 1 are uncertain"
    ]
    assert differences({"a": 1, "b": 0, "c": 1}, {"a", "b"}, {"a", "b"}, {"c", UNCOUNTED}) == [
        "rest: 2 events must be counted as a or b, but 1 are"
    ]


def test_what_ends_around_a_scrape_may_be_counted_and_what_begins_later_is_not() -> None:
    book = Book()
    for began, ended in ((0.0, 5.0), (9.0, 9.9), (10.5, 20.0), (11.5, 12.0)):
        book.note("a request", began, ended, grpc_stream="OK")
    seen = book.seen_by(10.0, 11.0)
    assert [entry.codes for entry in seen] == [{"OK"}, {"OK", UNCOUNTED}, {"OK", UNCOUNTED}]
    assert [unexplained(seen, {"grpc-stream": {"OK": number}}) != [] for number in range(5)] == [
        True, False, False, False, True,
    ]  # fmt: skip


def test_the_frames_of_a_study_that_fails_may_be_counted_each() -> None:
    book = Book()
    Reply("504", "deadline-exceeded").note(book, "a study", "rest", 3, 0.0, 1.0)
    entries = book.seen_by(10.0, 11.0)
    counted = [unexplained(entries, {"rejected": {"deadline-exceeded": number}}) == [] for number in range(6)]
    assert counted == [False, True, True, True, True, False]


def test_a_scrape_is_read_in_the_families_of_the_books() -> None:
    metrics = Metrics()
    metrics.requests.labels("grpc-stream", "OK").inc(3)
    metrics.requests.labels("rest", "499").inc()
    metrics.rejected.labels("client-left").inc()
    for slot in ("0", "1"):
        metrics.frames_received.labels(slot).inc(2)
        metrics.frames.labels(slot, "stale").inc()
    metrics.frame_duration.labels("answered").observe(0.1)
    metrics.reloads.labels("taken").inc()
    scrape = parsed(metrics.exposition()[0].decode(), 0.0, 1.0)
    assert set(scrape.counts) == set(FAMILIES)
    assert {family: +counts for family, counts in scrape.counts.items() if +counts} == {
        "grpc-stream": {"OK": 3}, "rest": {"499": 1}, "rejected": {"client-left": 1}, "received": {"frame": 4},
        "frames": {"stale": 2}, "work": {"answered": 1},
    }  # fmt: skip
    assert scrape.open_frames == 2
    assert scrape.gauges["reloads taken"] == 1
    assert scrape.gauges["reloads refused"] == 0


def test_a_log_may_hold_the_injected_faults_and_no_other_error() -> None:
    def line(level: str, text: str) -> str:
        return f"2026-01-02 03:04:05,678 {level:<7} service.batching.batcher: {text}\n"

    faults = Counter(fails=1, hangs=1)
    expected = line("ERROR", INJECTED) + 2 * line("ERROR", HANGS) + line("ERROR", f"{GIVEN_UP} 10.0 s")
    assert of_log(expected + line("WARNING", "a batch of 3 frames failed"), faults) == []
    assert of_log(2 * line("ERROR", INJECTED), faults) == [f"the log says 2 times, of at most 1 injected: {INJECTED}"]
    assert of_log(line("ERROR", ORPHAN), faults) == [f"the log says 1 times, of at most 0 injected: {ORPHAN}"]
    assert of_log(2 * line("ERROR", ORPHAN), Counter(orphans=2)) == []
    (broken,) = of_log(line("ERROR", "request 1 failed"), faults)
    assert "request 1 failed" in broken
    traceback = "Traceback (most recent call last):\n  File\nKeyError: 1\n"
    assert of_log(line("INFO", "a") + traceback + line("INFO", "b") + traceback, faults) == 2 * [
        "the log has lines without a level, which end with: KeyError: 1"
    ]


def of_life(life: int, seconds: float, resident: Iterable[int], threads: int = 9) -> list[Sample]:
    return [
        Sample(life * seconds + n * 30.0, life, each, threads, 0, 0, 0, 0, 0, 0.0) for n, each in enumerate(resident)
    ]


def test_growth_is_judged_between_the_second_and_the_last_sixth_of_the_longest_life() -> None:
    flat = [900, *range(800, 890, 15), *([1000] * 35)]
    samples = of_life(1, 0.0, [1, 2, 3]) + of_life(2, 100.0, flat)
    second, last = sixths(samples)
    assert [each.resident for each in second] == [1000] * 7
    assert growing(samples) == []
    assert growing(of_life(2, 100.0, [*flat, *([1030] * 7)])) == [
        "resident grows from 1000 in the second sixth to 1030 in the last"
    ]
    assert last[-1] is samples[-1]
    assert growing(of_life(1, 0.0, range(1, 20))) == []  # too short
