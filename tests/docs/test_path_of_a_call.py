"""How far a reader has to go to follow one call through the source: files, and moves from one to another."""

import pytest

from tools.trace_call import CALLS, traced

MOST = {  # moves, files
    "segment": (60, 16),
    "rpc": (50, 16),
    "infer": (75, 23),
    "archive": (75, 23),
}


@pytest.mark.parametrize("name", CALLS)
async def test_one_call_is_followed_in_few_files_and_moves(name: str) -> None:
    trace = await traced(CALLS[name])
    moves, files = MOST[name]
    assert trace.moves <= moves, trace
    assert trace.files <= files, trace
    assert trace.visits, "nothing was traced"
