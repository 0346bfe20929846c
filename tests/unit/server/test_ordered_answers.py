"""The wait of a usage stream for its next answer."""

import asyncio

from server.streams.ordered_answers import OrderedAnswers

LONG = 60.0  # seconds


async def test_wait_of_a_stream_ends_when_it_is_woken_before_or_during_it() -> None:
    stream = OrderedAnswers[None](10)
    stream.wake()
    stream.wake()
    assert await stream.woken(LONG)
    waiting = asyncio.create_task(stream.woken(LONG))
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.wake()
    assert await waiting
    # Both calls of `wake` before the first wait ended only that one.
    assert not await stream.woken(0)


async def test_wait_of_a_stream_ends_without_a_call_after_its_timeout() -> None:
    stream = OrderedAnswers[None](10)
    assert not await stream.woken(0.001)
    stream.wake()
    assert await stream.woken(0.001)


async def test_cancelled_wait_of_a_stream_leaves_nothing_behind() -> None:
    stream = OrderedAnswers[None](10)
    waiting = asyncio.create_task(stream.woken(LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    stream.wake()
    assert await stream.woken(LONG)
