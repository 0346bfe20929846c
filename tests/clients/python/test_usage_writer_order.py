"""Several streams of one writer: what a wait for acknowledgements includes, and the order within each stream."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.support.clients.scripted import Context, Requests, Scripted, answer
from tests.support.clients.usage import event, until
from tidemark_client import AsyncClient, AsyncUsageWriter, Client, WriterOptions
from tidemark_client.usage.events import MAX_EVENT_BYTES
from tidemark_client.usage.portions import stream_of
from tidemark_client.v1 import EvaluateUsageResponse, UsageEvent

SLOW, FAST = (
    next(name for name in map("customer-{}".format, itertools.count()) if stream_of(name, 2) == stream)
    for stream in range(2)
)  # customers of two streams


class Slow:
    """A server that answers events of the slow customer only while its gate is open. seen: the events that came."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen: list[UsageEvent] = []

    async def __call__(self, requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            self.seen += request.batch.events
            if any(one.customer_id == SLOW for one in request.batch.events):
                await self.gate.wait()
            yield answer(request)

    def names(self, customer_id: str) -> list[str]:
        return [one.event_id for one in self.seen if one.customer_id == customer_id]


async def flushed(writer: AsyncUsageWriter) -> int:
    """How many events are acknowledged when the wait ends."""
    await writer.flush(60)
    return writer.counts.acknowledged


async def test_later_events_of_another_stream_do_not_end_a_wait() -> None:
    slow = Slow()
    async with (
        Scripted(slow) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(WriterOptions(streams=2, max_batch_events=1)) as writer,
    ):
        await writer.send(event("first", customer_id=SLOW))
        waiting = asyncio.create_task(flushed(writer))
        await until(lambda: slow.seen)
        await writer.send(event("second", customer_id=FAST))
        await writer.send(event("third", customer_id=FAST))
        await until(lambda: writer.counts.acknowledged == 2)
        later = asyncio.create_task(flushed(writer))
        slow.gate.set()
        assert await waiting == 3
        assert await later == 3


async def test_events_after_the_beginning_of_a_wait_do_not_lengthen_it() -> None:
    slow = Slow()
    async with (
        Scripted(slow) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(WriterOptions(streams=2, max_batch_events=1)) as writer,
    ):
        await writer.send(event("first", customer_id=FAST))
        waiting = asyncio.create_task(flushed(writer))
        await asyncio.sleep(0)  # the wait begins
        await writer.send(event("second", customer_id=SLOW))
        assert await waiting == 1
        slow.gate.set()


def made(count: int) -> list[UsageEvent]:
    return [event(f"e-{number}", customer_id=(SLOW, FAST)[number % 3 == 0]) for number in range(count)]


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("max_batch_bytes", [300, 100_000])
async def test_lists_iterators_and_single_events_keep_the_order_of_a_customer(
    streams: int, max_batch_bytes: int
) -> None:
    slow = Slow()
    slow.gate.set()
    options = WriterOptions(
        streams=streams, max_batch_events=40, max_batch_bytes=max_batch_bytes, max_pending_events=200
    )
    events = made(900)
    async with (
        Scripted(slow) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(options) as writer,
    ):
        await writer.send_all(events[:300])
        await writer.send_all(iter(events[300:500]))
        future = await writer.submit(events[500])
        await writer.send(events[501])
        await writer.send_all(tuple(events[502:]))
        assert await flushed(writer) == 900
        assert (await future).accepted
    for customer_id in (SLOW, FAST):
        assert slow.names(customer_id) == [one.event_id for one in events if one.customer_id == customer_id]


async def test_threads_keep_the_order_of_a_customer() -> None:
    slow = Slow()
    slow.gate.set()
    events = made(900)

    def use(port: int) -> int:
        options = WriterOptions(streams=2, max_batch_events=40, max_pending_events=200)
        with Client(f"127.0.0.1:{port}") as client, client.usage_writer(options) as writer:
            writer.send_all(events[:300])
            futures = [writer.submit(one) for one in events[300:350]]
            writer.send_all(iter(events[350:500]))
            writer.send_all(events[500:])
            writer.flush(60)
            assert all(future.result(60).accepted for future in futures)
            return writer.counts.acknowledged

    async with Scripted(slow) as server:
        assert await asyncio.to_thread(use, server.port) == 900
    for customer_id in (SLOW, FAST):
        assert slow.names(customer_id) == [one.event_id for one in events if one.customer_id == customer_id]


async def test_list_with_an_event_that_is_too_large_is_taken_up_to_it() -> None:
    slow = Slow()
    slow.gate.set()
    events = made(30)
    events[20].properties["note"] = "x" * MAX_EVENT_BYTES
    bare = events[18]  # in the same portion
    bare.ClearField("event_id")
    bare.ClearField("event_time")
    async with (
        Scripted(slow) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer() as writer,
    ):
        with pytest.raises(ValueError, match="larger than"):
            await writer.send_all(events)
        assert await flushed(writer) == 20
    assert bare.event_id
    assert bare.HasField("event_time")
    assert {one.event_id for one in slow.seen} == {one.event_id for one in events[:20]}


async def test_program_that_only_sends_lets_the_streams_send() -> None:
    slow = Slow()
    slow.gate.set()
    async with (
        Scripted(slow) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(WriterOptions(max_batch_events=1)) as writer,
    ):
        await writer.send(event("first"))
        assert await flushed(writer) == 1  # it is connected
        sent = 0
        while writer.counts.acknowledged == 1:  # without any other wait
            await writer.send(event(f"e-{sent}"))
            sent += 1
            assert sent < 100_000


async def test_while_messages_wait_the_next_one_becomes_fuller() -> None:
    slow = Slow()
    names = [f"e-{number}" for number in range(30)]
    async with (
        Scripted(slow) as server,
        AsyncClient(f"127.0.0.1:{server.port}") as client,
        client.usage_writer(WriterOptions(streams=1, in_flight=1, linger=0.0)) as writer,
    ):
        for name in names:
            await writer.send(event(name, customer_id=SLOW))
            await asyncio.sleep(0.001)  # linger ends
        slow.gate.set()
        assert await flushed(writer) == 30
        assert len(server.received[0]) <= 5  # three are with the stream, one waits, and one takes all others
    assert slow.names(SLOW) == names
