"""A usage stream that ends at any point: the client continues, or reports what happened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from cli.client.connection import Address
from tests.support.clients.scripted import (
    Cable,
    Context,
    Requests,
    Script,
    Scripted,
    answer,
    answers_all,
    batches,
    large_batches,
    names,
)
from tidemark_client.errors import ConnectionLost
from tidemark_client.usage.batches import Batch
from tidemark_client.usage.stream import UsageStream
from tidemark_client.v1.alert_service_pb2 import EvaluateUsageResponse
from tidemark_client.v1.usage_pb2 import UsageEvent

DEADLINE = 30.0  # seconds
A_WHILE = 0.2  # seconds for a client to read an answer; if they are too short, a test proves less and does not fail
FAREWELLS = ("ends at once", "ends", "fails", "stays", "dies")
BATCHES = 6


class Client:
    """A client, with its acknowledgements and interruptions."""

    def __init__(self, channel: grpc.aio.Channel, **settings: float) -> None:
        self.channel = channel
        self.acknowledged: list[str] = []
        self.interruptions: list[str] = []
        self.stream = UsageStream(channel, on_interruption=self.interruptions.append, **settings)  # type: ignore[arg-type]  # only floats

    async def send(self, source: AsyncIterator[Batch]) -> None:
        """Sends everything; fails when that hangs."""
        async with asyncio.timeout(DEADLINE):
            await self.stream.send(source, lambda batch, response: self.acknowledged.append(batch.batch_id))


@asynccontextmanager
async def connected(port: int, **settings: float) -> AsyncIterator[Client]:
    """A client of what listens there."""
    async with Address(f"127.0.0.1:{port}").channel() as channel:
        yield Client(channel, **settings)


def stays_after_one(answered: asyncio.Event) -> Script:
    """Answers one request, sets `answered`, and reads no other request until the client ends the stream."""

    async def script(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        answered.set()
        await asyncio.Event().wait()

    return script


@pytest.mark.parametrize("farewell", FAREWELLS)
async def test_client_continues_when_a_server_goes_away_while_a_write_is_blocked(farewell: str) -> None:
    writing = asyncio.Event()

    async def goes_away(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        await writing.wait()
        yield EvaluateUsageResponse(going_away=True)
        if farewell == "ends at once":
            return
        await asyncio.sleep(A_WHILE)
        if farewell == "fails":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "scripted")
        if farewell == "dies":
            cable.cut()
        if farewell != "ends":
            await asyncio.Event().wait()

    async with (
        Scripted(goes_away, answers_all) as server,
        Cable(server.port) as cable,
        connected(cable.port, farewell=1.0) as client,
    ):
        await client.send(large_batches(BATCHES, writing))
    assert client.acknowledged == names(BATCHES)
    assert server.received[0] == ["b0"]
    # Whether the first answer was read in time, and the end met a write (so that one went alone), is a race.
    assert server.received_alone + server.received[-1] in (names(BATCHES)[1:], names(BATCHES))


async def test_client_continues_when_a_connection_breaks_while_a_write_is_blocked() -> None:
    writing = asyncio.Event()

    async def dies(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        await writing.wait()
        cable.cut()
        await asyncio.Event().wait()

    async with Scripted(dies, answers_all) as server, Cable(server.port) as cable, connected(cable.port) as client:
        await client.send(large_batches(BATCHES, writing))
    assert client.acknowledged == names(BATCHES)
    assert server.received[0] == ["b0"]
    assert client.interruptions


async def test_client_opens_a_new_stream_when_grpc_cancels_the_call() -> None:
    writing, answered = asyncio.Event(), asyncio.Event()
    async with Scripted(stays_after_one(answered), answers_all) as server, connected(server.port) as client:
        sending = asyncio.create_task(client.send(large_batches(BATCHES, writing)))
        await answered.wait()
        await writing.wait()
        (writer,) = (task for task in asyncio.all_tasks() if task.get_name() == "writer")
        writer.cancel()  # in the middle of call.write(), whereupon grpc.aio cancels the call
        await sending
    assert client.acknowledged == names(BATCHES)
    assert client.interruptions == ["the call was cancelled on this side"]


async def test_client_ends_when_it_is_cancelled_while_a_write_is_blocked() -> None:
    writing, answered = asyncio.Event(), asyncio.Event()
    async with Scripted(stays_after_one(answered), answers_all) as server, connected(server.port) as client:
        sending = asyncio.create_task(client.send(large_batches(BATCHES, writing)))
        await answered.wait()
        await writing.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert sending.cancelled()
    assert client.interruptions == []
    assert server.streams == 1


async def test_client_gives_up_when_its_channel_is_closed() -> None:
    answered = asyncio.Event()
    async with Scripted(stays_after_one(answered)) as server, connected(server.port) as client:
        sending = asyncio.create_task(client.send(batches(BATCHES)))
        await answered.wait()
        await client.channel.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await sending


async def test_client_gives_up_when_its_channel_is_closed_during_a_unary_call() -> None:
    stream_ended, alone = asyncio.Event(), asyncio.Event()

    async def ends_in_a_write(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        stream_ended.set()
        await context.abort(grpc.StatusCode.INTERNAL, "Internal error from Core")  # so grpc.aio words it

    async def stays(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        alone.set()
        await asyncio.Event().wait()
        yield EvaluateUsageResponse()

    async def one_then_the_other(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for response in (stays if stream_ended.is_set() else ends_in_a_write)(requests, context):
            yield response

    async with Scripted(one_then_the_other) as server, connected(server.port) as client:
        sending = asyncio.create_task(client.send(batches(BATCHES)))
        await alone.wait()
        assert server.streams == 1
        await client.channel.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await sending


async def test_client_leaves_a_server_that_falls_silent() -> None:
    server = Scripted(stays_after_one(asyncio.Event()), answers_all)
    async with server, connected(server.port, silence=1.0) as client:
        await client.send(batches(BATCHES))
    assert client.acknowledged == names(BATCHES)
    assert client.interruptions[0] == "the server was silent for 1 seconds"


async def test_client_gives_up_after_its_patience_when_servers_stay_silent() -> None:
    async def never(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        await asyncio.Event().wait()
        yield EvaluateUsageResponse()

    async with Scripted(never) as server, connected(server.port, silence=0.2, patience=0.5) as client:
        with pytest.raises(ConnectionLost, match="silent"):
            await client.send(batches(BATCHES))
    assert server.streams > 1


async def test_client_does_not_give_up_in_silence_while_no_answer_is_owed() -> None:
    async def rarely() -> AsyncIterator[Batch]:
        async for batch in batches(2):
            yield batch
            while len(client.interruptions) < 4:  # noqa: ASYNC110 (together they last longer than the patience)
                await asyncio.sleep(0.01)

    async with Scripted(answers_all) as server, connected(server.port, silence=0.5, patience=1.5) as client:
        await client.send(rarely())
    assert client.acknowledged == names(2)


async def test_batch_that_cannot_be_serialized_raises_its_own_error() -> None:
    async def wrong() -> AsyncIterator[Batch]:
        yield Batch("b0", [UsageEvent()])
        yield Batch("b1", ["no event"])  # type: ignore[list-item]  # on purpose

    async with Scripted(answers_all) as server, connected(server.port) as client:
        with pytest.raises(AttributeError, match="SerializeToString"):
            await client.send(wrong())
    assert client.interruptions == []


async def test_cancelled_source_raises_an_error_after_its_batches_are_acknowledged() -> None:
    async def cancelled() -> AsyncIterator[Batch]:
        async for batch in batches(2):
            yield batch
        raise asyncio.CancelledError  # as when it awaits a task that was cancelled

    async with Scripted(answers_all) as server, connected(server.port) as client:
        with pytest.raises(RuntimeError, match="the source of the batches was cancelled"):
            await client.send(cancelled())
    assert client.acknowledged == names(2)
