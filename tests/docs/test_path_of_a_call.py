"""How far a reader has to go to follow one call through the source: files, and moves from one to another."""

import pytest

from tools.trace_call import CALLS, traced

MOST = {  # moves, files
    "segment": (60, 16),
    "rpc": (50, 16),
    "infer": (74, 23),
    "archive": (76, 23),
}


TRACES = 3  # of which the shortest counts: on a busy machine, the end of an earlier call can fall into one


@pytest.mark.parametrize("name", CALLS)
async def test_one_call_is_followed_in_few_files_and_moves(name: str) -> None:
    trace = min([await traced(CALLS[name]) for _ in range(TRACES)], key=lambda each: (each.files, each.moves))
    moves, files = MOST[name]
    assert trace.visits, "nothing was traced"
    assert trace.moves <= moves, trace.visits
    assert trace.files <= files, trace.visits


async def test_what_runs_in_a_thread_is_counted_in_every_trace() -> None:
    """A second trace finds threads of the first one."""
    for _ in range(2):
        trace = await traced(CALLS["archive"])
        assert ("service/rest/archive_routes.py", "_encoded") in trace.visits
