"""The streaming client against a server that does what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from cli.client.batches import Batch
from cli.client.connection import FIRST_PAUSE, Address
from cli.client.errors import DETAILS_KEY
from cli.client.usage_stream import ConnectionLost, UsageStream
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageRequest, EvaluateUsageResponse
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.cli.scripted import Context, Requests, Script, Scripted, answer, answers_all, batches, names


def answers_then(count: int, code: grpc.StatusCode, *details: Message) -> Script:
    """Answers `count` requests, takes one more, and fails with `code`."""

    async def script(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        done = 0
        async for request in requests:
            if done == count:
                break
            done += 1
            yield answer(request)
        status = status_pb2.Status(code=code.value[0])
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        await context.abort(code, "as told", ((DETAILS_KEY, status.SerializeToString()),))

    return script


async def send(server: Scripted, source: AsyncIterator[Batch], **settings: Any) -> tuple[list[str], UsageStream]:
    """The batches that were acknowledged, in order."""
    acknowledged: list[str] = []
    async with server, Address(f"127.0.0.1:{server.port}").channel() as channel:
        stream = UsageStream(channel, **settings)
        async with asyncio.timeout(20):
            await stream.send(source, lambda batch, response: acknowledged.append(batch.batch_id))
    return acknowledged, stream


async def test_every_batch_is_acknowledged_in_order() -> None:
    acknowledged, stream = await send(Scripted(answers_all), batches(20))
    assert acknowledged == names(20)
    assert stream.resent == 0


async def test_an_empty_source_is_fine() -> None:
    acknowledged, _ = await send(Scripted(answers_all), batches(0))
    assert acknowledged == []


async def test_what_was_not_acknowledged_is_sent_again_on_a_new_stream() -> None:
    server = Scripted(
        answers_then(3, grpc.StatusCode.UNAVAILABLE), answers_then(0, grpc.StatusCode.INTERNAL), answers_all
    )
    acknowledged, stream = await send(server, batches(12))
    assert acknowledged == names(12)
    assert server.streams == 3
    assert stream.resent >= 2


async def test_a_server_that_goes_away_is_taken_at_its_word() -> None:
    async def goes_away(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        yield EvaluateUsageResponse(heartbeat=True)
        yield EvaluateUsageResponse(going_away=True)

    server = Scripted(goes_away, answers_all)
    acknowledged, _ = await send(server, batches(9))
    assert acknowledged == names(9)
    assert server.streams == 2


async def test_a_batch_interrupted_while_it_was_being_made_is_not_lost() -> None:
    async def slowly() -> AsyncIterator[Batch]:
        async for batch in batches(4):
            await asyncio.sleep(0.2)  # the stream breaks meanwhile
            yield batch

    async def breaks_soon(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "as told")

    acknowledged, _ = await send(Scripted(breaks_soon, answers_all), slowly())
    assert acknowledged == names(4)


async def test_no_more_batches_than_the_window_are_on_their_way() -> None:
    waiting = 0
    most = 0

    async def counts(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        nonlocal waiting, most
        pending: list[EvaluateUsageRequest] = []
        async for request in requests:
            pending.append(request)
            waiting += 1
            most = max(most, waiting)
            if len(pending) == 3:
                for one in pending:
                    waiting -= 1
                    yield answer(one)
                pending = []

    acknowledged, _ = await send(Scripted(counts), batches(12), window=3)
    assert acknowledged == names(12)
    assert most == 3


async def test_an_overloaded_server_is_asked_again_when_it_says() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(50)
    server = Scripted(answers_then(1, grpc.StatusCode.RESOURCE_EXHAUSTED, retry), answers_all)
    acknowledged, _ = await send(server, batches(5))
    assert acknowledged == names(5)


@pytest.mark.parametrize("milliseconds", [0, -5_000, 1])
async def test_a_server_that_asks_for_no_wait_is_not_asked_in_a_tight_loop(milliseconds: int) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(milliseconds)
    busy = answers_then(0, grpc.StatusCode.RESOURCE_EXHAUSTED, retry)
    waits = Waits()
    acknowledged, _ = await send(Scripted(busy, busy, busy, answers_all), batches(5), sleep=waits.sleep)
    assert acknowledged == names(5)
    assert [wait >= FIRST_PAUSE * 2**number / 2 for number, wait in enumerate(waits)] == [True] * 3


async def test_a_server_that_asks_for_days_is_asked_again_within_the_patience() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromSeconds(100_000)
    waits = Waits()
    busy = answers_then(0, grpc.StatusCode.RESOURCE_EXHAUSTED, retry)
    await send(Scripted(busy, answers_all), batches(2), patience=7.0, sleep=waits.sleep)
    assert waits == [7.0]


class Waits(list[float]):
    """How long the client means to wait between two tries; it waits for a moment only."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_what_no_new_stream_can_mend_is_raised(code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await send(Scripted(answers_then(0, code)), batches(5))
    assert raised.value.code() is code


async def test_a_connection_without_answers_is_lost_for_good_after_the_patience() -> None:
    server = Scripted(answers_then(0, grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(ConnectionLost, match="as told"):
        await send(server, batches(5), patience=0.5)
    assert server.streams > 1


async def test_an_error_of_the_source_comes_after_what_it_gave_was_acknowledged() -> None:
    acknowledged: list[str] = []

    async def breaks() -> AsyncIterator[Batch]:
        async for batch in batches(3):
            yield batch
        raise ValueError("row 4")

    server = Scripted(answers_all)
    async with server, Address(f"127.0.0.1:{server.port}").channel() as channel:
        stream = UsageStream(channel)
        with pytest.raises(ValueError, match="row 4"):
            await stream.send(breaks(), lambda batch, response: acknowledged.append(batch.batch_id))
    assert acknowledged == names(3)


async def test_interruptions_are_told() -> None:
    told: list[str] = []
    server = Scripted(answers_then(0, grpc.StatusCode.UNAVAILABLE), answers_all)
    async with server, Address(f"127.0.0.1:{server.port}").channel() as channel:
        stream = UsageStream(channel, on_interruption=told.append)
        await stream.send(batches(3), lambda batch, response: None)
    assert told == ["as told"]


def test_a_batch_keeps_its_lines() -> None:
    lines: Sequence[int] = Batch("b", [UsageEvent()], [7]).lines
    assert lines == [7]
