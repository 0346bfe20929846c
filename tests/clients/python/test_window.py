"""The window of batches: taken from a source, kept until they are acknowledged."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tidemark_client.usage.batches import Batch
from tidemark_client.usage.window import BatchWindow
from tidemark_client.v1.usage_pb2 import UsageOutcome


async def source(*batch_ids: str) -> AsyncIterator[Batch]:
    for batch_id in batch_ids:
        yield Batch(batch_id, [])


def answer(batch_id: str) -> UsageOutcome:
    return UsageOutcome(batch_id=batch_id)


async def settle() -> None:
    """Lets all ready tasks run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_window_gives_no_further_batch_until_one_is_acknowledged() -> None:
    window: BatchWindow[Batch] = BatchWindow(2)
    filling = asyncio.create_task(window.fill(source("a", "b", "c")))
    assert [await window.next(), await window.next()] == [Batch("a", []), Batch("b", [])]
    third = asyncio.create_task(window.next())
    await settle()
    assert not third.done()
    assert window.acknowledge(answer("a")) == Batch("a", [])
    assert await third == Batch("c", [])
    assert list(window.unacknowledged) == [Batch("b", []), Batch("c", [])]
    await filling


async def test_window_is_complete_when_the_source_has_ended_and_all_is_acknowledged() -> None:
    window: BatchWindow[Batch] = BatchWindow(1)
    filling = asyncio.create_task(window.fill(source("a")))
    await window.next()
    assert not window.is_exhausted
    window.acknowledge(answer("a"))
    assert await window.next() is None
    assert (window.is_exhausted, window.is_complete, window.acknowledgement_count) == (True, True, 1)
    await filling


async def test_window_refuses_an_answer_to_another_batch() -> None:
    window: BatchWindow[Batch] = BatchWindow(2)
    filling = asyncio.create_task(window.fill(source("a", "b")))
    await window.next()
    await window.next()
    with pytest.raises(RuntimeError, match="answered batch 'b' before 'a'"):
        window.acknowledge(answer("b"))
    window.acknowledge(answer("b"))
    with pytest.raises(RuntimeError, match="more often than it was sent"):
        window.acknowledge(answer("b"))
    await filling


async def test_cancelled_wait_for_a_batch_leaves_room_in_the_window() -> None:
    window: BatchWindow[Batch] = BatchWindow(1)
    waiting = asyncio.create_task(window.next())
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    filling = asyncio.create_task(window.fill(source("a")))
    async with asyncio.timeout(30):
        assert await window.next() == Batch("a", [])
    await filling
