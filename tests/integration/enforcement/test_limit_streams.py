"""The streams of LimitService: heartbeats, drains, clients that cancel, two servers and two organizations."""

import asyncio
import math
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import customer_pb2
from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.clock import ManualClock
from server.enforcement.watched import WatchedOrganization
from server.enforcement.watching import DecisionWatch
from tests.support.balances.holder import Holder
from tests.support.enforcement.gateway import put_limit
from tests.support.enforcement.limits import Limits, message, named, next_of, remaining_of, reserve, usage, watched
from tests.support.usage.caller import DEADLINE, Caller, beside, ingest_held, settings, until, waiting_for_locks
from tests.support.usage.organizations import organization
from tests.support.waiting import within

OPENERS = ("EnforceUsage", "WatchDecisions")


def opened(limits: Limits, method: str) -> Any:
    """An open stream of a method."""
    return limits.open(method, watched("acme") if method == "WatchDecisions" else None)


@pytest.mark.parametrize("method", OPENERS)
async def test_idle_stream_gets_heartbeats(caller: Caller, method: str) -> None:
    async with beside(caller, settings(heartbeat=0.05)) as lively:
        stream = opened(Limits(lively), method)
        beats = 0
        async with within("two heartbeats"):
            while beats < 2:
                beats += (await stream.read()).heartbeat
        stream.cancel()


@pytest.mark.parametrize("method", OPENERS)
async def test_idle_stream_of_a_draining_server_ends_with_going_away(caller: Caller, method: str) -> None:
    async with beside(caller) as leaving:
        stream = opened(Limits(leaving), method)
        if method == "WatchDecisions":
            await next_of(stream)
        else:
            await stream.write(message("b-1", reserve("r-1")))
            await next_of(stream)
        leaving.server.shutdown.request()
        async with within("the end of the stream"):
            assert (await stream.read()).going_away
            assert await stream.read() is grpc.aio.EOF
        assert await stream.code() == grpc.StatusCode.OK
        await leaving.server.stopped


async def test_draining_server_answers_the_messages_it_read_and_others_are_sent_again(caller: Caller) -> None:
    await put_limit(caller, "100")
    sent = [message(f"b-{number}", reserve(f"r-{number}", "10")) for number in range(4)]
    async with beside(caller) as leaving:
        stream = Limits(leaving).open("EnforceUsage")
        async with ingest_held(caller):
            for one in sent:
                await stream.write(one)
            await waiting_for_locks(caller)
            leaving.server.shutdown.request()
        async with within("the end of the stream"):
            answers = [one async for one in stream]
        assert await stream.code() == grpc.StatusCode.OK
        assert answers[-1] == messages.EnforceUsageResponse(going_away=True)
        answered = [one.batch_id for one in answers[:-1]]
        assert answered == [one.batch_id for one in sent[: len(answered)]]
        assert answered
        await leaving.server.stopped
    limits = Limits(caller)
    again = limits.open("EnforceUsage")
    for one in sent:
        await again.write(one)
    first = {one.batch_id: one.results[0].reserve.decision for one in answers[:-1]}
    for one in sent:
        answer = await again.read()
        assert first.get(one.batch_id) in (None, answer.results[0].reserve.decision)
    again.cancel()
    assert await limits.remaining() == "60"


async def test_requests_are_carried_out_once_when_the_client_cancels_during_the_commit(caller: Caller) -> None:
    await put_limit(caller, "100")
    limits = Limits(caller)
    stream = limits.open("EnforceUsage")
    unary = asyncio.create_task(limits.reserve("r-2", "5"))
    async with ingest_held(caller):
        await stream.write(message("b-1", reserve("r-1", "10")))
        await waiting_for_locks(caller)
        stream.cancel()
        unary.cancel()
    await asyncio.wait({unary})

    async def held() -> bool:
        return await limits.remaining() in ("90", "85")

    await until(held)
    for _ in range(2):
        assert (await limits.reserve("r-1", "10"))["decision"]["grantedQuantity"] == "10"
        assert (await limits.reserve("r-2", "5"))["decision"]["grantedQuantity"] == "5"
    assert await limits.remaining() == "85"


async def test_two_servers_share_the_limits_and_the_reservations(caller: Caller) -> None:
    await put_limit(caller, "500")
    async with beside(caller) as other:
        here, there = Limits(caller), Limits(other)
        watch = there.open("WatchDecisions", watched("acme"))
        assert await remaining_of(watch) == {"acme": "500"}
        answers = await asyncio.gather(
            *((here, there)[number % 2].reserve(f"r-{number}", "75") for number in range(20))
        )
        outcomes = [answer["decision"]["outcome"] for answer in answers]
        assert outcomes.count("DECISION_OUTCOME_ALLOWED") == 6
        assert outcomes.count("DECISION_OUTCOME_DENIED") == 14
        remaining = ""
        async with within("the last state"):
            while remaining != "50":
                remaining = (await remaining_of(watch))["acme"]
        granted = [number for number, outcome in enumerate(outcomes) if outcome == "DECISION_OUTCOME_ALLOWED"]
        for number in granted:
            again = await (there, here)[number % 2].reserve(f"r-{number}", "75")
            assert again["decision"]["outcome"] == "DECISION_OUTCOME_ALLOWED"
            await (there, here)[number % 2].call("SettleReservation", **named(f"r-{number}"))
        assert await here.remaining() == "50"
        watch.cancel()


async def test_streams_of_two_organizations_see_only_their_own(caller: Caller, clock: ManualClock) -> None:
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    await put_limit(caller, "10")
    await put_limit(stranger, "20")
    ours, theirs = Limits(caller), Limits(stranger)
    watches = [limits.open("WatchDecisions", watched("acme")) for limits in (ours, theirs)]
    assert [await remaining_of(watch) for watch in watches] == [{"acme": "10"}, {"acme": "20"}]
    streams = [limits.open("EnforceUsage") for limits in (ours, theirs)]
    for stream in streams:
        await stream.write(message("b-1", reserve("r-1", "8"), {"release": named("r-2")}))
        results = (await next_of(stream))["results"]
        assert results[0]["reserve"]["decision"]["outcome"] == "DECISION_OUTCOME_ALLOWED"
        assert "error" in results[1]
    assert [await remaining_of(watch) for watch in watches] == [{"acme": "2"}, {"acme": "12"}]
    for stream in (*watches, *streams):
        stream.cancel()


async def test_message_of_a_client_that_waits_for_nothing_is_answered(caller: Caller) -> None:
    """Many messages at once share commits, and come back in their order."""
    await put_limit(caller, "1000000")
    stream = Limits(caller).open("EnforceUsage")
    for number in range(40):
        await stream.write(message(str(number), *(reserve(f"r-{number}-{one}") for one in range(50))))
    await stream.done_writing()
    async with within("all answers", DEADLINE):
        answers = [one async for one in stream if not one.heartbeat]
    assert [one.batch_id for one in answers] == [str(number) for number in range(40)]
    assert all(len(one.results) == 50 for one in answers)
    assert await Limits(caller).remaining() == "998000"


async def test_looks_find_every_change_of_a_customer_and_of_those_above(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By usage, reservations, limits, balances and facts, on this server and on another. Without rounds over all."""

    async def no_round(_: DecisionWatch, watched: WatchedOrganization) -> None:
        watched.round_due = math.inf

    monkeypatch.setattr(DecisionWatch, "_go_round", no_round)
    for name, parent in (("org", ""), ("team", "org"), ("acme", "team"), ("idle", "")):
        await caller.put_customer(customer_pb2.Customer(customer_id=name, parent_customer_id=parent))
    await put_limit(caller, "1000", "of-org", customer="org")
    limits = Limits(caller)
    stream = limits.open("WatchDecisions", watched("acme", "idle"))
    assert await remaining_of(stream) == {"acme": "1000", "idle": ""}
    async with beside(caller) as second:
        other = Limits(second)
        await other.call("ReserveUsage", reservationId="r-1", usage=usage("100", "team"))
        assert await remaining_of(stream) == {"acme": "900"}
        await second.send(second.event("e-1", "50", "org"))
        assert await remaining_of(stream) == {"acme": "850"}
        await other.call("SettleReservation", **named("r-1", "team"), quantity="10")
        assert await remaining_of(stream) == {"acme": "940"}
        await put_limit(second, "0", "own")
        assert await remaining_of(stream) == {"acme": "0"}
        await put_limit(second, "2000", "own")
        assert await remaining_of(stream) == {"acme": "940"}
        await second.put_customer(customer_pb2.Customer(customer_id="idle", parent_customer_id="org"))
        assert await remaining_of(stream) == {"idle": "940"}
        holder = Holder(second)
        await holder.put("grant", "0", metric="calls")
        answer = await next_of(stream)
        assert [one["decision"]["reason"] for one in answer["decisions"]] == ["DECISION_REASON_BALANCE"]
        await holder.adjust("grant", "5")
        assert await remaining_of(stream) == {"acme": "940"}
    stream.cancel()
