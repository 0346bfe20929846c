"""The usage stream of the client library against a scripted server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from cli.client.connection import Address
from tests.support.clients.scripted import Context, Requests, Script, Scripted, answer, answers_all, batches, names
from tidemark_client.errors import ConnectionLost, TidemarkError
from tidemark_client.errors.status import DETAILS_KEY
from tidemark_client.tasks.backoff import FIRST_PAUSE
from tidemark_client.usage.batches import Batch
from tidemark_client.usage.stream import UsageStream
from tidemark_client.v1.alert_service_pb2 import EvaluateUsageRequest, EvaluateUsageResponse
from tidemark_client.v1.usage_pb2 import UsageEvent


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
        await context.abort(code, "scripted", ((DETAILS_KEY, status.SerializeToString()),))

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


async def test_empty_source_sends_nothing() -> None:
    acknowledged, _ = await send(Scripted(answers_all), batches(0))
    assert acknowledged == []


async def test_unacknowledged_batches_are_sent_again_on_a_new_stream() -> None:
    server = Scripted(
        answers_then(3, grpc.StatusCode.UNAVAILABLE), answers_then(0, grpc.StatusCode.INTERNAL), answers_all
    )
    acknowledged, stream = await send(server, batches(12))
    assert acknowledged == names(12)
    assert server.streams == 3
    assert stream.resent >= 2


async def test_client_opens_a_new_stream_after_going_away() -> None:
    async def goes_away(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        yield EvaluateUsageResponse(heartbeat=True)
        yield EvaluateUsageResponse(going_away=True)

    server = Scripted(goes_away, answers_all)
    acknowledged, _ = await send(server, batches(9))
    assert acknowledged == names(9)
    assert server.streams == 2


async def test_batch_of_a_slow_source_is_not_lost_when_the_stream_breaks() -> None:
    broken = asyncio.Event()

    async def slowly() -> AsyncIterator[Batch]:
        async for batch in batches(4):
            if batch.batch_id != "b0":
                await broken.wait()  # the source is in the middle of a batch when the stream breaks
            yield batch

    async def breaks_soon(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        yield answer(await anext(requests))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    acknowledged, _ = await send(
        Scripted(breaks_soon, answers_all), slowly(), on_interruption=lambda sentence: broken.set()
    )
    assert acknowledged == names(4)


async def test_batches_in_flight_never_exceed_the_window() -> None:
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


async def test_client_retries_after_the_delay_that_an_overloaded_server_asks_for() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(50)
    server = Scripted(answers_then(1, grpc.StatusCode.RESOURCE_EXHAUSTED, retry), answers_all)
    acknowledged, _ = await send(server, batches(5))
    assert acknowledged == names(5)


@pytest.mark.parametrize("milliseconds", [0, -5_000, 1])
async def test_client_keeps_its_own_pause_when_a_server_asks_for_no_wait(milliseconds: int) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(milliseconds)
    busy = answers_then(0, grpc.StatusCode.RESOURCE_EXHAUSTED, retry)
    waits = Waits()
    acknowledged, _ = await send(Scripted(busy, busy, busy, answers_all), batches(5), sleep=waits.sleep)
    assert acknowledged == names(5)
    assert [wait >= FIRST_PAUSE * 2**number / 2 for number, wait in enumerate(waits)] == [True] * 3


async def test_client_waits_no_longer_than_its_patience_when_a_server_asks_for_days() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromSeconds(100_000)
    waits = Waits()
    busy = answers_then(0, grpc.StatusCode.RESOURCE_EXHAUSTED, retry)
    await send(Scripted(busy, answers_all), batches(2), patience=7.0, sleep=waits.sleep)
    assert waits == [7.0]


class Waits(list[float]):
    """Records how long the client waits between two streams; the real wait is short."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_error_that_a_new_stream_would_repeat_is_raised(code: grpc.StatusCode) -> None:
    with pytest.raises(TidemarkError) as raised:
        await send(Scripted(answers_then(0, code)), batches(5))
    assert raised.value.code() is code


async def test_client_gives_up_after_its_patience_without_answers() -> None:
    server = Scripted(answers_then(0, grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(ConnectionLost, match="scripted"):
        await send(server, batches(5), patience=0.5)
    assert server.streams > 1


async def test_error_of_the_source_is_raised_after_its_batches_are_acknowledged() -> None:
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


async def test_interruptions_are_reported() -> None:
    interruptions: list[str] = []
    server = Scripted(answers_then(0, grpc.StatusCode.UNAVAILABLE), answers_all)
    async with server, Address(f"127.0.0.1:{server.port}").channel() as channel:
        stream = UsageStream(channel, on_interruption=interruptions.append)
        await stream.send(batches(3), lambda batch, response: None)
    assert interruptions == ["scripted"]


def test_batch_keeps_the_lines_of_its_events() -> None:
    lines: Sequence[int] = Batch("b", [UsageEvent()], [7]).lines
    assert lines == [7]
