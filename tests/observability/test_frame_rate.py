"""The rate of frames is that of the last seconds, whatever happens to the clock."""

import time

from pranet_client.connection import Reply
from pranet_client.pictures import VideoFrame
from service.commands.stream_statistics import StreamStatistics
from service.observability.metrics import FrameRate
from tests.support.pictures import encoded, red_box
from tests.support.serving import serving


async def test_frames_are_timed_by_a_clock_that_nobody_can_set() -> None:
    async with serving() as it:
        answer = await it.rest.post("/segment", content=encoded(red_box(64, 48, (16, 12, 48, 36))))
        assert answer.status_code == 200
        rate, now = it.service.metrics.frame_rate, time.monotonic()
    assert now - 60 < rate[-1] <= now
    assert abs(rate.last - time.time()) < 60


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate, now = FrameRate(), time.monotonic()
    for seconds in (3600, 60, 20):
        rate.extend([now - seconds] * 25)
    assert rate.per_second() == 0
    rate.extend([time.monotonic()] * 10)
    assert rate.per_second() == 2


def test_the_rate_of_a_stream_is_right_from_its_first_second_on() -> None:
    statistics, began = StreamStatistics(), time.monotonic() - 1
    for number in range(10):
        statistics.count(Reply(VideoFrame(number, b"", began), "answered", 0.1, None))
    assert 2 < float(statistics.line().split()[0]) <= 10  # 2 if it were divided by the whole window
