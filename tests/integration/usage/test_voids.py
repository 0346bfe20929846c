"""VoidUsageEvents: counted events are taken back from gauges of every aggregation, and their alerts resolve."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest

from engine.upkeep import Upkeep
from evaluator.events import UsageEvent
from generated.tidemark.v1 import metric_pb2, threshold_pb2, usage_pb2
from runtime.clock import ManualClock
from store.citus.shard_tables import ShardsOf
from store.postgres.database import Database, DriverConnection
from store.usage import events as stored_events
from tests.support.postgres.lock_waits import END_WAITING_SESSIONS
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    BOTH,
    Caller,
    ShortTransition,
    beside,
    calling,
    refusals,
    shortened,
    usage_alert,
    values,
    waiting_for_locks,
)
from tests.support.usage.organizations import create_organization, organization
from tests.support.usage.voiding import key, outcomes, void

pytestmark = shares_server


def both(*levels: str) -> list[threshold_pb2.Threshold]:
    """Thresholds that notify of both kinds."""
    return [threshold_pb2.Threshold(value=level, notify_on=BOTH) for level in levels]


async def shown(caller: Caller, customer: str = "acme", metric: str = "calls") -> dict[str, Any]:
    """The values of the gauges of a metric, by the value of their first group key."""
    rows = await caller.rows(
        "SELECT group_values, value FROM gauge WHERE organization_id = %(organization_id)s"
        " AND customer_id = %(customer)s AND measure = %(measure)s",
        customer=customer,
        measure=f"usage/{metric}",
    )
    return {(group[0][1] if group else ""): value for group, value in rows}


async def voided_rows(caller: Caller) -> list[tuple[str, Any]]:
    """The voided events that an operator sees: id and quantity, in the order of the voids."""
    rows = await caller.rows(
        "SELECT event_id, quantity FROM voided_event WHERE organization_id = %(organization_id)s ORDER BY void_number"
    )
    return [(row[0], row[1]) for row in rows]


async def test_voided_event_counts_no_more_and_resolves_its_alert(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=both("10", "100")))
    await caller.send(caller.event("e1", "4"), caller.event("e2", "8"), caller.event("e3", "1"))
    answer = await void(caller, "e2")
    assert outcomes(answer) == ["VOIDED"]
    assert await shown(caller) == {"": 5}
    reached, resolved = await caller.notifications()
    assert reached.transitions == [ShortTransition("REACHED", "10", "4", "12", "e2")]
    assert resolved.transitions == [ShortTransition("RESOLVED", "10", "13", "5", "e2")]
    assert resolved.event_type == "alert.resolved"
    [transition] = resolved.body["data"]["transitions"]
    assert transition["voided_events"] == 1
    assert await voided_rows(caller) == [("e2", 8)]


async def test_events_of_one_request_make_one_step_of_their_gauge(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=both("10")))
    at = caller.clock.now() - timedelta(seconds=1)
    await caller.send(caller.event("e1", "20"), caller.event("e2", "-15", at=at), caller.event("e3", "7", at=at))
    assert len(await caller.notifications()) == 1  # 20, 5, 12
    assert outcomes(await void(caller, "e1", "e2")) == ["VOIDED", "VOIDED"]
    last = (await caller.notifications())[-1]
    assert last.transitions == [ShortTransition("RESOLVED", "10", "12", "7", "e1")]
    assert last.body["data"]["transitions"][0]["voided_events"] == 2


@pytest.mark.parametrize(
    ("aggregation", "with_all", "without_last", "without_any"),
    [("SUM", 15, 6, 0), ("COUNT", 3, 2, 0), ("MAX", 9, 4, 0), ("LATEST", 9, 2, 0), ("UNIQUE_COUNT", 3, 2, 0)],
)
async def test_gauge_of_every_aggregation_is_what_the_other_events_make_it(
    caller: Caller, aggregation: str, with_all: int, without_last: int, without_any: int
) -> None:
    metric = metric_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}")
    await caller.put_metric("seats", metric, "seat" if aggregation == "UNIQUE_COUNT" else "")
    await caller.create(usage_alert("1000", metric="seats"))
    start = caller.clock.now() - timedelta(hours=1)
    for number, quantity in enumerate(("4", "2", "9")):
        at = start + timedelta(minutes=number)
        await caller.send(caller.event(f"e{number}", quantity, metric="seats", at=at, seat=f"s{number}"))
    assert await shown(caller, metric="seats") == {"": with_all}
    await void(caller, "e2")
    assert await shown(caller, metric="seats") == {"": without_last}
    await void(caller, "e0", "e1")
    assert await shown(caller, metric="seats") == {"": without_any}
    # A maximum or a latest value of nothing is not zero: the next event counts whatever its sign is.
    answer = await caller.send(caller.event("e9", "-3", metric="seats", seat="s2"), gauges=True)
    again = {"SUM": -3, "COUNT": -1, "MAX": -3, "LATEST": -3, "UNIQUE_COUNT": 1}[aggregation]
    assert values(answer.gauges) == {("acme", "seats"): again}


async def test_value_that_another_event_has_too_stays_counted(caller: Caller) -> None:
    await caller.put_metric("seats", metric_pb2.AGGREGATION_UNIQUE_COUNT, "seat")
    await caller.create(usage_alert("1000", metric="seats"))
    await caller.send(*(caller.event(f"e{number}", metric="seats", seat=f"s{number // 2}") for number in range(4)))
    await void(caller, "e0", "e2", "e3")
    assert await shown(caller, metric="seats") == {"": 1}
    answer = await caller.send(caller.event("e5", metric="seats", seat="s1"), gauges=True)
    assert values(answer.gauges) == {("acme", "seats"): 2}


async def test_value_voided_while_no_alert_watched_counts_again_when_it_comes_again(caller: Caller) -> None:
    await caller.put_metric("seats", metric_pb2.AGGREGATION_UNIQUE_COUNT, "seat")
    first = await caller.create(usage_alert("1000", metric="seats"))
    await caller.send(*(caller.event(f"e{number}", metric="seats", seat=f"s{number}") for number in range(3)))
    await caller.archive(first.alert_id)
    await void(caller, "e0")
    await caller.create(usage_alert("1000", metric="seats"))
    assert await shown(caller, metric="seats") == {"": 2}
    answer = await caller.send(caller.event("e5", metric="seats", seat="s0"), gauges=True)
    assert values(answer.gauges) == {("acme", "seats"): 3}


async def test_groups_and_subscriptions_lose_only_their_own_events(caller: Caller) -> None:
    await caller.create(usage_alert("1000", groups=[("region", None)]))
    await caller.send(
        caller.event("e1", "1", region="eu"),
        caller.event("e2", "2", region="us"),
        caller.event("e3", "4", region="eu"),
    )
    await void(caller, "e3")
    assert await shown(caller) == {"eu": 1, "us": 2}


async def test_id_counts_again_after_the_void_also_with_other_content(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=both("10")))
    await caller.send(caller.event("e1", "12"))
    await void(caller, "e1")
    answer = await caller.send(caller.event("e1", "30"), gauges=True)
    assert answer.accepted == 1
    assert values(answer.gauges) == {("acme", "calls"): 30}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "0", "30", "e1")]
    assert outcomes(await void(caller, "e1")) == ["VOIDED"]
    assert await shown(caller) == {"": 0}
    assert await voided_rows(caller) == [("e1", 12), ("e1", 30)]


@own_server
async def test_each_event_has_an_outcome_of_its_own(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("1000"))
    old = clock.now() - timedelta(days=32)
    await caller.send(caller.event("old", "1", at=old), caller.event("twice", "2", at=old))
    clock.advance(timedelta(days=30))
    await caller.send(caller.event("twice", "3"), caller.event("new", "4"), caller.event("new", "5", "beta"))
    answer = await void(caller, "new", "new", "never", "old", "twice", key("twice", at=clock.now()))
    assert outcomes(answer) == ["VOIDED", "ALREADY_VOIDED", "NOT_FOUND", "TOO_OLD", "AMBIGUOUS", "VOIDED"]
    again = await void(caller, "new", key("new", at=old), key("old", at=clock.now()), key("new", "beta"))
    assert outcomes(again) == ["ALREADY_VOIDED", "NOT_FOUND", "NOT_FOUND", "VOIDED"]
    assert await caller.event_count() == 2


@own_server
async def test_late_event_of_a_period_within_its_grace_is_voided_there(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert(thresholds=both("10")))
    await caller.send(caller.event("e1", "12"))
    clock.advance(timedelta(days=30))
    await void(caller, "e1")
    resolved = (await caller.notifications())[-1]
    assert resolved.transitions == [ShortTransition("RESOLVED", "10", "12", "0", "e1")]
    assert resolved.body["data"]["late"] is True


async def test_repeated_request_gets_the_first_answer_and_voids_nothing_more(
    caller: Caller,
) -> None:
    await caller.create(usage_alert("1000"))
    await caller.send(caller.event("e1", "12"))
    first = await void(caller, "e1", request_id="r1")
    await caller.send(caller.event("e1", "7"))
    async with beside(caller) as other:  # another server: the answer is stored
        again = await void(other, "e1", request_id="r1")
    assert (outcomes(again), again.void_time, again.replayed) == (["VOIDED"], first.void_time, True)
    assert await shown(caller) == {"": 7}
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await void(caller, "e2", request_id="r1")
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_validate_only_answers_the_outcomes_and_changes_nothing(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=both("10")))
    await caller.send(caller.event("e1", "12"))
    assert outcomes(await void(caller, "e1", "e2", validate_only=True)) == ["VOIDED", "NOT_FOUND"]
    assert (await shown(caller), await caller.event_count(), await voided_rows(caller)) == ({"": 12}, 1, [])
    assert len(await caller.notifications()) == 1
    answer = await caller.send(caller.event("e1", "12"))
    assert (answer.accepted, answer.duplicates) == (0, 1)


async def test_bad_requests_are_refused_as_a_whole(caller: Caller) -> None:
    await caller.send(caller.event("e1"))
    bad = key("e1")
    bad.event_time.nanos = -1
    for events, message in (
        ((), "the request has none"),
        (tuple(f"e{number}" for number in range(1001)), "send at most 1000"),
        (("e1", ""), "events[1].event_id"),
        ((key("e1", ""),), "events[0].customer_id"),
        ((bad,), "events[0].event_time"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await void(caller, *events)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert message in (raised.value.details() or "")
    assert await caller.event_count() == 1


async def test_void_touches_no_event_of_another_organization(
    caller: Caller, shared_database_url: str, clock: ManualClock
) -> None:
    name, api_key = await organization(shared_database_url, clock)
    async with calling(shared_database_url, clock, name, api_key) as other:
        for one in (caller, other):
            await one.create(usage_alert("1000"))
            await one.send(one.event("e1", "5"))
        assert outcomes(await void(caller, "e1")) == ["VOIDED"]
        assert (await shown(caller), await shown(other)) == ({"": 0}, {"": 5})
        assert outcomes(await void(other, "e1")) == ["VOIDED"]


async def test_alert_that_is_created_after_the_void_counts_the_rest(caller: Caller) -> None:
    await caller.send(caller.event("e1", "12"), caller.event("e2", "5"))
    assert outcomes(await void(caller, "e1")) == ["VOIDED"]
    await caller.create(usage_alert("1000"))
    assert await shown(caller) == {"": 5}


async def test_voids_and_duplicates_on_two_servers_leave_what_the_answers_say(caller: Caller) -> None:
    """Every event counts exactly when more sends of it were accepted than voids of it succeeded."""
    await caller.create(usage_alert("1000000"))
    await caller.put_metric("peak", metric_pb2.AGGREGATION_MAX)
    await caller.create(usage_alert("1000000", metric="peak"))
    balance = dict.fromkeys(range(8), 0)

    def events(one: Caller, numbers: range) -> list[usage_pb2.UsageEvent]:
        metrics = ("calls", "peak")
        return [one.event(f"e{n}", str(2**n), metric=metrics[n % 2], at=caller.clock.now()) for n in numbers]

    async def sends(one: Caller, rounds: int) -> None:
        for turn in range(rounds):
            for number in balance:
                chosen = (number + turn) % len(balance)
                answer = await one.send(*events(one, range(chosen, chosen + 1)))
                assert not refusals(answer)
                balance[chosen] += answer.accepted

    async def voids(one: Caller, rounds: int) -> None:
        for turn in range(rounds):
            numbers = [number for number in balance if (number + turn) % 3]
            answer = await void(one, *(f"e{number}" for number in reversed(numbers)))
            for number, outcome in zip(reversed(numbers), outcomes(answer), strict=True):
                balance[number] -= outcome == "VOIDED"

    async with beside(caller) as other:
        await asyncio.gather(sends(caller, 6), sends(other, 6), voids(caller, 8), voids(other, 8))
    left = [number for number, count in balance.items() if count]
    assert set(balance.values()) <= {0, 1}
    assert await caller.event_count() == len(left)
    sums = sum(2**number for number in left if number % 2 == 0)
    assert (await shown(caller))[""] == sums
    peak = max((2**number for number in left if number % 2), default=0)
    assert (await shown(caller, metric="peak")).get("", 0) == peak


async def test_void_that_is_cut_off_changes_nothing_and_its_retry_voids_once(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=both("10")))
    await caller.send(caller.event("e1", "12"), caller.event("e2", "1"))
    async with await psycopg.AsyncConnection.connect(caller.database_url) as holder:
        # The void has locked its events and waits for the gauge.
        await holder.execute("SELECT 1 FROM gauge WHERE customer_id = 'acme' FOR UPDATE")
        waiting = asyncio.create_task(void(caller, "e1", request_id="r1"))
        await waiting_for_locks(caller)
        await caller.rows(END_WAITING_SESSIONS)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await waiting
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await shown(caller), await caller.event_count()) == ({"": 13}, 2)
    again = await void(caller, "e1", request_id="r1")
    assert (outcomes(again), again.replayed) == (["VOIDED"], False)
    assert (await shown(caller), await caller.event_count()) == ({"": 1}, 1)
    assert len(await caller.notifications()) == 2


async def test_duplicate_during_a_void_counts_only_when_it_comes_again_afterwards(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    event = caller.event("e1", "12")
    await caller.send(event)
    async with await psycopg.AsyncConnection.connect(caller.database_url) as holder:
        await holder.execute("SELECT 1 FROM gauge WHERE customer_id = 'acme' FOR UPDATE")
        voiding = asyncio.create_task(void(caller, "e1"))
        await waiting_for_locks(caller)
        # The event is locked, but not deleted yet: what comes now is a duplicate of an event that still counts. With
        # the new customer it is no small commit, which would wait for the gauge.
        assert (await caller.send(event, caller.event("e2", "1", customer="new"))).duplicates == 1
    assert outcomes(await voiding) == ["VOIDED"]
    assert (await caller.send(event)).accepted == 1
    assert await shown(caller) == {"": 12}


async def test_two_voids_of_one_event_take_it_back_once(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    await caller.send(caller.event("e1", "12"), caller.event("e2", "5"))
    async with beside(caller) as other:
        answers = await asyncio.gather(*(void(one, "e1") for one in (caller, other, caller, other)))
    assert sorted(outcomes(one)[0] for one in answers) == ["ALREADY_VOIDED"] * 3 + ["VOIDED"]
    assert await shown(caller) == {"": 5}


@own_server
async def test_duplicate_whose_event_is_voided_while_it_is_compared_counts(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("1000"))
    event = caller.event("e1", "12")
    await caller.send(event)
    compare = stored_events.stored_alike
    voided: list[str] = []

    async def void_first(
        connection: DriverConnection,
        organization_id: int,
        events: Sequence[UsageEvent],
        shards: ShardsOf | None = None,
    ) -> set[int]:
        if not voided:
            voided.extend(outcomes(await void(caller, "e1")))
        return await compare(connection, organization_id, events, shards)

    monkeypatch.setattr(stored_events, "stored_alike", void_first)
    answer = await caller.send(event, gauges=True)
    assert (voided, answer.accepted, len(answer.rejected)) == (["VOIDED"], 1, 0)
    assert values(answer.gauges) == {("acme", "calls"): 12}


async def test_voided_events_are_kept_as_long_as_the_month_of_their_time(
    database_url: str, database: Database, clock: ManualClock
) -> None:
    name, api_key = await create_organization(database, clock)
    async with calling(database_url, clock, name, api_key) as caller:
        await caller.send(caller.event("e1", "12"))
        await void(caller, "e1")
        retention = timedelta(days=400)
        end_of_month = datetime(2026, 4, 1, tzinfo=UTC)
        for time, kept in ((end_of_month - timedelta(seconds=1), 1), (end_of_month, 0)):
            await Upkeep(database, ManualClock(time + retention), retention, retention).run_once()
            assert len(await voided_rows(caller)) == kept
