"""EvaluateUsage: order of answers, heartbeats, drains, clients that cancel, and limits of pending events."""

import asyncio
import gc

import grpc
import pytest

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from server.limits import ServerLimits
from tests.support.server.limits import with_server_limits
from tests.support.server.running import status_of
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    ShortTransition,
    beside,
    everything,
    explained,
    ingest_held,
    settings,
    shortened,
    until,
    usage_alert,
    values,
    waiting_for_locks,
)
from tests.support.waiting import within

Request = alert_service_pb2.EvaluateUsageRequest
Response = alert_service_pb2.EvaluateUsageResponse


async def test_stream_answers_requests_in_their_order(caller: Caller) -> None:
    await caller.create(usage_alert("200", "300"))
    stream = caller.stream()
    for number in range(100):
        events = [caller.event(f"{number}-{place}", "1", f"c{place}") for place in range(number % 7)]
        events.append(caller.event(f"{number}", "4"))
        await stream.write(Request(batch=usage_pb2.UsageBatch(batch_id=f"batch {number}", events=events)))
    answers, error = await everything(stream)
    assert error is None
    assert [one.outcome.batch_id for one in answers] == [f"batch {number}" for number in range(100)]
    assert [one.outcome.accepted for one in answers] == [number % 7 + 1 for number in range(100)]
    found = {one.outcome.batch_id: shortened(one.outcome.transitions) for one in answers if one.outcome.transitions}
    assert found == {
        "batch 49": [ShortTransition("REACHED", "200", "196", "200", "49")],
        "batch 74": [ShortTransition("REACHED", "300", "296", "300", "74")],
    }


async def test_streams_in_one_commit_get_their_own_answers(caller: Caller) -> None:
    await caller.create(usage_alert("3", "5"))
    streams = [caller.stream() for _ in range(6)]
    async with ingest_held(caller):
        for number, stream in enumerate(streams):
            request = Request(
                batch=usage_pb2.UsageBatch(
                    batch_id=str(number), events=[caller.event(f"e{number}")], include_gauges=number == 5
                )
            )
            await stream.write(request)
            await waiting_for_locks(caller)
        # The first batch waits for the lock alone; the others wait for its commit and share the next one.
    found: list[ShortTransition] = []
    for number, stream in enumerate(streams):
        [answer], error = await everything(stream)
        assert error is None
        assert (answer.outcome.batch_id, answer.outcome.accepted) == (str(number), 1)
        own = shortened(answer.outcome.transitions)
        assert all(one.event_id == f"e{number}" for one in own)
        found += own
        assert values(answer.outcome.gauges) == ({("acme", "calls"): 6} if number == 5 else {})
    assert sorted(one.level for one in found) == ["3", "5"]


async def test_idle_stream_gets_heartbeats_and_accepts_later_events(caller: Caller) -> None:
    async with beside(caller, settings(heartbeat=0.05)) as lively:
        stream = lively.stream()
        for number in range(2):
            for _ in range(2):
                heartbeat = await asyncio.wait_for(stream.read(), DEADLINE)
                assert heartbeat == Response(heartbeat=True)
            await stream.write(
                Request(batch=usage_pb2.UsageBatch(batch_id=str(number), events=[lively.event(f"e{number}")]))
            )
            async with within("the answer to a batch"):
                while (answer := await stream.read()) == Response(heartbeat=True):
                    pass
            assert isinstance(answer, Response)
            assert (answer.outcome.batch_id, answer.outcome.accepted) == (str(number), 1)
        stream.cancel()


async def test_draining_server_answers_the_requests_it_read_and_sends_going_away(caller: Caller) -> None:
    async with beside(caller) as leaving:
        busy, idle = leaving.stream(), leaving.stream()
        await idle.wait_for_connection()
        async with ingest_held(caller):
            for number in range(3):
                await busy.write(
                    Request(batch=usage_pb2.UsageBatch(batch_id=str(number), events=[leaving.event(f"e{number}")]))
                )
            await waiting_for_locks(caller)
            leaving.server.shutdown.request()
            async with within("the end of an idle stream"):
                assert [one async for one in idle] == [Response(going_away=True)]
            assert await idle.code() == grpc.StatusCode.OK
        async with within("the end of a busy stream"):
            answers = [one async for one in busy]
        assert await busy.code() == grpc.StatusCode.OK
        assert answers[-1] == Response(going_away=True)
        answered = [(one.outcome.batch_id, one.outcome.accepted) for one in answers[:-1]]
        assert answered == [(str(number), 1) for number in range(len(answered))]
        await leaving.server.stopped
    assert answered
    assert await caller.event_count() == len(answered)
    # The client sends again, to another server, what was not answered.
    answer = await caller.send(*(caller.event(f"e{number}") for number in range(3)))
    assert (answer.accepted, answer.duplicates) == (3 - len(answered), len(answered))


async def test_events_are_stored_when_the_client_cancels_during_the_commit(caller: Caller) -> None:
    await caller.create(usage_alert("5"))
    stream = caller.stream()
    unary = asyncio.create_task(caller.send(caller.event("e1", "3", "beta")))
    async with ingest_held(caller):
        await stream.write(
            Request(batch=usage_pb2.UsageBatch(events=[caller.event("e1", "3"), caller.event("e2", "3")]))
        )
        await waiting_for_locks(caller)
        stream.cancel()
        unary.cancel()
    await asyncio.wait({unary})

    async def stored() -> bool:
        return await caller.event_count("acme") == 2

    await until(stored)
    answer = await caller.send(caller.event("e1", "3"), caller.event("e2", "3"), caller.event("e1", "3", "beta"))
    assert answer.accepted + answer.duplicates == 3
    assert not [one for one in answer.transitions if one.gauge.customer_id == "acme"]
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "5", "3", "6", "e2")]
    ]


async def test_resent_event_counts_once_when_the_deadline_ended_during_the_commit(caller: Caller) -> None:
    async with ingest_held(caller):
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await caller.alerts.EvaluateUsageBatch(
                alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[caller.event("e1")])),
                metadata=caller.metadata,
                timeout=0.2,
            )
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    answer = await caller.send(caller.event("e1"), caller.event("e2"))
    assert answer.accepted + answer.duplicates == 2
    assert await caller.event_count() == 2


async def test_batches_above_the_limit_of_pending_events_are_refused_and_others_count(caller: Caller) -> None:
    async with beside(caller, settings(max_pending_events=170)) as small:
        events = [[small.event(f"{number}-{place}") for place in range(40)] for number in range(5)]
        async with ingest_held(caller):
            sending = [asyncio.create_task(small.send(*batch)) for batch in events]
            done, waiting = await asyncio.wait(sending, return_when=asyncio.FIRST_EXCEPTION)
            while len(done) < 3:
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        for refused in done:
            error = refused.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            status = status_of(error)
            assert explained(status) == ("RESOURCE_EXHAUSTED", "OVERLOADED", ())
            assert any(detail.type_url.endswith("google.rpc.RetryInfo") for detail in status.details)
        assert [(await one).accepted for one in waiting] == [40, 40]
        assert await caller.event_count() == 80
        # A batch above the limit is accepted when no other event is pending.
        assert (await small.send(*(event for batch in events for event in batch))).accepted == 120


async def test_fast_stream_is_slowed_by_flow_control_and_not_refused(caller: Caller) -> None:
    """The server stops reading the stream until answers are sent, also with a small limit of pending events."""
    async with beside(
        caller, settings(max_pending_events=100), server_limits=ServerLimits(stream_events=90)
    ) as small:
        stream = small.stream()
        async with ingest_held(caller):
            for number in range(30):
                events = [small.event(f"{number}-{place}", "1", f"c{place}") for place in range(20)]
                await stream.write(Request(batch=usage_pb2.UsageBatch(events=events)))
            await waiting_for_locks(caller)
        answers, error = await everything(stream)
    assert error is None
    assert [one.outcome.accepted for one in answers] == [20] * 30


@with_server_limits(ServerLimits(stream_events=10))
async def test_batch_above_the_event_limit_of_a_stream_is_accepted(caller: Caller) -> None:
    stream = caller.stream()
    for number in range(5):
        await stream.write(
            Request(batch=usage_pb2.UsageBatch(events=[caller.event(f"{number}-{place}") for place in range(15)]))
        )
    answers, error = await everything(stream)
    assert error is None
    assert [one.outcome.accepted for one in answers] == [15] * 5


async def test_stream_answers_every_batch_when_it_sends_more_than_it_may_hold(caller: Caller) -> None:
    stream = caller.stream()
    async with ingest_held(caller):
        for number in range(200):
            await stream.write(
                Request(batch=usage_pb2.UsageBatch(batch_id=str(number), events=[caller.event(f"e{number}")]))
            )
    answers, error = await everything(stream)
    assert error is None
    assert [one.outcome.batch_id for one in answers] == [str(number) for number in range(200)]
    assert await caller.event_count() == 200


async def test_an_idle_stream_does_not_keep_the_answer_to_its_last_message(caller: Caller) -> None:
    stream = caller.stream()
    await stream.write(Request(batch=usage_pb2.UsageBatch(batch_id="last", events=[caller.event("e", "1")])))
    async with within("the answer"):
        answer = await stream.read()
        assert isinstance(answer, Response)
        assert answer.outcome.batch_id == "last"

    async def is_freed() -> bool:
        gc.collect()
        tasks = [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]
        return not [one for one in tasks if one.get_name() == "usage-answer"]

    await until(is_freed)
    await stream.done_writing()
