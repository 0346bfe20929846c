"""A usage stream to a server with a fault: limited tries, and one event does not hold up the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from cli.client.connection import Address
from tests.support.clients.scripted import Context, Requests, Script, Scripted, answer, answers_all, batches, names
from tidemark_client.errors import ConnectionLost
from tidemark_client.errors.status import DETAILS_KEY
from tidemark_client.usage.batches import Batch
from tidemark_client.usage.isolation import MAX_REJECTED
from tidemark_client.usage.stream import MAX_FAULTS, UsageStream
from tidemark_client.v1.alert_service_pb2 import EvaluateUsageResponse
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

DEADLINE = 60.0  # seconds


async def send(
    port: int,
    source: AsyncIterator[Batch],
    *,
    patience: float = DEADLINE,
    first_pause: float = 0.01,
    longest_pause: float = 0.02,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[list[tuple[str, UsageOutcome]], UsageStream]:
    answered: list[tuple[str, UsageOutcome]] = []
    async with asyncio.timeout(DEADLINE), Address(f"127.0.0.1:{port}").channel() as channel:
        stream = UsageStream(
            channel, patience=patience, first_pause=first_pause, longest_pause=longest_pause, sleep=sleep
        )
        await stream.send(source, lambda batch, outcome: answered.append((batch.batch_id, outcome)))
    return answered, stream


def fails_over(*event_ids: str) -> Script:
    async def script(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            if any(event.event_id in event_ids for event in request.batch.events):
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")
            yield answer(request)

    return script


async def test_event_with_which_the_server_fails_is_rejected_alone() -> None:
    async with Scripted(fails_over("e2-3", "e4-0")) as server:
        answered, _ = await send(server.port, batches(6, size=7))
    assert [name for name, _ in answered] == names(6)
    assert [outcome.accepted for _, outcome in answered] == [7, 7, 6, 7, 6, 7]
    rejected = {
        name: [(one.index, one.status.code, one.status.message) for one in outcome.rejected]
        for name, outcome in answered
    }
    assert {name: found for name, found in rejected.items() if found} == {
        "b2": [(3, 13, "internal error")],
        "b4": [(0, 13, "internal error")],
    }
    # Both batches were tried a bounded number of times before they were taken apart.
    assert server.streams <= 2 * MAX_FAULTS + 1


async def test_client_gives_up_when_the_server_fails_with_every_event() -> None:
    async def fails(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        await anext(requests)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        yield EvaluateUsageResponse()

    async with Scripted(fails) as server:
        with pytest.raises(ConnectionLost, match="internal error"):
            await send(server.port, batches(1, size=4 * MAX_REJECTED), patience=1.0)


async def test_temporary_fault_of_the_server_rejects_no_event() -> None:
    async def fails(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        await anext(requests)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        yield EvaluateUsageResponse()

    async with Scripted(fails, fails, answers_all) as server:
        answered, _ = await send(server.port, batches(3))
    assert [(name, len(outcome.rejected)) for name, outcome in answered] == [(name, 0) for name in names(3)]


async def test_client_doubles_its_pause_when_a_server_asks_for_a_delay_of_0() -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)
        await asyncio.sleep(0)

    details = any_pb2.Any()
    details.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration()))
    status = status_pb2.Status(code=14, message="busy", details=[details]).SerializeToString()

    async def busy(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        context.set_trailing_metadata(((DETAILS_KEY, status),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        yield EvaluateUsageResponse()

    async with Scripted(busy, busy, busy, busy, answers_all) as server:
        answered, _ = await send(server.port, batches(1), first_pause=0.5, longest_pause=8.0, sleep=sleep)
    assert [name for name, _ in answered] == ["b0"]
    # Doubled from try to try, and spread over the upper half.
    assert len(slept) == 4
    assert all(0.25 * 2**number <= pause <= 0.5 * 2**number for number, pause in enumerate(slept))


async def test_answer_of_a_batch_sent_in_parts_counts_each_event_once() -> None:
    """What the pieces were answered is one answer, by the places in the whole batch."""

    async def rejects_odd(requests: Requests, context: Context) -> AsyncIterator[EvaluateUsageResponse]:
        async for request in requests:
            if any(event.event_id == "5" for event in request.batch.events):
                await context.abort(grpc.StatusCode.UNKNOWN, "unknown")
            response = EvaluateUsageResponse(outcome=UsageOutcome(batch_id=request.batch.batch_id))
            for index, event in enumerate(request.batch.events):
                if int(event.event_id) % 2:
                    response.outcome.rejected.add(index=index, event_id=event.event_id)
                else:
                    response.outcome.accepted += 1
            yield response

    async def one() -> AsyncIterator[Batch]:
        yield Batch("b", [UsageEvent(event_id=str(number)) for number in range(11)])

    async with Scripted(rejects_odd) as server:
        ((_, outcome),), stream = await send(server.port, one())
    assert outcome.accepted == 6
    assert [one.index for one in outcome.rejected] == [1, 3, 5, 7, 9]
    assert stream.resent > 0
