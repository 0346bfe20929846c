"""A filter leaves an empty list of events, customers or gauges: each path continues."""

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.limits import BackfillLimits, EngineLimits
from evaluator.balances import BalanceKind
from evaluator.exclusions import ExclusionReason
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    scope_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from store.accounts import invoice_readings
from store.alerts import backfills as stored_backfills
from store.alerts import exclusions
from store.alerts.states import read_states, write_states
from store.balances import drawdown as drawing
from store.balances import holdings, overages, wallet_timers, wallets
from store.notifications import evaluation_failures, operator_events
from store.notifications.writing import write_notifications
from store.postgres.database import Database, driver
from store.rules import routing_facts as facts
from store.usage import events, gauge_moves, gauges, recounts
from store.usage.counted_groups import counted_groups
from tests.support.usage.caller import Caller, Refusal, everything, refusals, thresholds, usage_alert, values

Request = alert_service_pb2.EvaluateUsageRequest
TOO_OLD = [Refusal(0, "FAILED_PRECONDITION", "EVENT_TOO_OLD")]
LONG_AGO = timedelta(days=60)


@pytest.mark.parametrize("alerts", [False, True])
async def test_event_of_a_closed_period_is_rejected_by_index_when_it_is_alone_in_its_batch(
    caller: Caller, alerts: bool
) -> None:
    if alerts:
        await caller.create(usage_alert("1"))
    old = caller.event("old", at=caller.clock.now() - LONG_AGO)
    for _ in range(2):  # with and without the customer in the cache
        answer = await caller.send(old, gauges=True)
        assert (refusals(answer), answer.accepted, list(answer.gauges)) == (TOO_OLD, 0, [])
    stream = caller.stream()
    for event in (old, caller.event("new")):
        await stream.write(Request(batch=usage_pb2.UsageBatch(events=[event])))
    answers, error = await everything(stream)
    assert error is None
    assert [(refusals(answer.outcome), answer.outcome.accepted) for answer in answers] == [(TOO_OLD, 0), ([], 1)]


async def test_stored_event_is_a_duplicate_after_its_period_closed(caller: Caller) -> None:
    once = caller.event("once")
    assert (await caller.send(once)).accepted == 1
    caller.clock.advance(LONG_AGO)  # type: ignore[attr-defined]
    answer = await caller.send(once)
    assert (answer.duplicates, refusals(answer)) == (1, [])
    answer = await caller.send(once, caller.event("late", at=caller.clock.now() - LONG_AGO))
    assert (answer.duplicates, refusals(answer)) == (1, [TOO_OLD[0]._replace(at=1)])


def low_commits() -> alert_pb2.Alert:
    """An alert on facts: a customer without commits has a remaining amount of 0."""
    condition = condition_pb2.LowRemainingCommitBalanceReachedCondition()
    return alert_pb2.Alert(
        display_name="facts",
        scope=scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope()),
        low_remaining_commit_balance_reached=condition,
        thresholds=thresholds("1"),
    )


@pytest.mark.parametrize("engine_limits", [EngineLimits(backfills=BackfillLimits(customers_per_step=2))])
@pytest.mark.parametrize("customers", [0, 2, 4])
@pytest.mark.parametrize("of_facts", [False, True])
async def test_backfill_completes_with_and_without_customers_in_its_last_step(
    caller: Caller, customers: int, of_facts: bool
) -> None:
    for number in range(customers):
        await caller.send(caller.event("e", customer=f"c{number}"))
    await caller.create(low_commits() if of_facts else usage_alert("1"))  # waits for the end of the backfill
    assert len(await caller.notifications()) == customers


async def test_backfill_notifies_nothing_for_customers_without_usage_of_the_metric(caller: Caller) -> None:
    await caller.send(caller.event("e"))
    await caller.create(usage_alert("1", metric="never-used"))
    await caller.create(usage_alert("1", groups=[("region", None)]))
    assert await caller.notifications() == []


async def test_recount_of_a_period_with_one_event_counts_only_that_event(caller: Caller) -> None:
    """The event is in a new period, and no other event of that period is stored."""
    await caller.send(caller.event("e1", "3"))
    caller.clock.advance(timedelta(days=20))  # type: ignore[attr-defined]
    await caller.create(usage_alert("5"))
    answer = await caller.send(caller.event("e2", "4"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 4}


async def test_every_ingest_statement_accepts_an_empty_list(caller: Caller, clock: ManualClock) -> None:
    await caller.send(caller.event("e"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    before = await caller.rows("SELECT count(*) FROM event WHERE organization_id = %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    async with database.transaction() as connection:
        await _nothing(connection, organization_id, clock)
    await database.close()
    assert await caller.rows("SELECT count(*) FROM event WHERE organization_id = %(organization_id)s") == before


async def _nothing(connection: AsyncConnection, organization_id: int, clock: ManualClock) -> None:
    raw, now = await driver(connection), clock.now()
    await events.copy(raw, events.copy_text(organization_id, now, []))
    assert await events.insert(raw, organization_id, now, []) == set()
    assert await events.stored_alike(raw, organization_id, []) == set()
    assert await gauge_moves.move(raw, organization_id, gauge_moves.Moves([], [], [], []), now, True) == []
    assert await gauges.lock(raw, organization_id, [], now) == {}
    await gauges.write(raw, organization_id, [], now)
    assert await gauges.count_values(raw, organization_id, []) == set()
    assert await read_states(raw, organization_id, []) == {}
    await write_states(raw, organization_id, [])
    await write_notifications(raw, organization_id, [], now)
    assert await recounts.recount(raw, organization_id, []) == []
    await recounts.recount_values(raw, organization_id, [])
    assert await wallets.lock(connection, organization_id, []) == {}
    assert await wallets.lock_with_drawdown(connection, organization_id, []) == {}
    assert await wallet_timers.claim_due(connection, organization_id, [], now) == {}
    await wallet_timers.set_timers(connection, organization_id, {})
    await wallet_timers.set_earlier_timers(connection, organization_id, {})
    assert await holdings.of_kinds(raw, organization_id, [], []) == {}
    assert await holdings.of_kinds(raw, organization_id, [], [BalanceKind.COMMIT]) == {}
    assert await holdings.of_seats(raw, organization_id, "acme", []) == []
    assert await holdings.seats_changing_at(raw, organization_id, {}) == {}
    assert await holdings.next_change_of_seats(raw, organization_id, {}) == {}
    assert await drawing.send_drawables(raw, organization_id, {}, {}) == []
    assert await overages.of_customers(raw, organization_id, []) == {}
    await drawing.write(raw, organization_id, [], {}, now)
    assert await exclusions.count(raw, organization_id, []) == {}
    assert await exclusions.of_customers(raw, organization_id, []) == set()
    assert not await exclusions.exclude(raw, organization_id, [], ExclusionReason.GROUP_LIMIT, 0, now)
    assert await counted_groups(raw, organization_id, [], [], now) == {}
    assert await counted_groups(raw, organization_id, [], ["region"], now) == {}
    assert await gauges.epochs_with_value(raw, organization_id, []) == {}
    await stored_backfills.begin(connection, organization_id, [])
    assert await stored_backfills.without_first(raw, organization_id, []) == set()
    assert await facts.customers(raw, organization_id, []) == []
    assert await facts.subscriptions(raw, organization_id, []) == []
    assert await facts.subscriptions_of(raw, organization_id, []) == []
    assert await facts.metrics(raw, organization_id, []) == []
    assert await facts.register_customers(raw, organization_id, [], 0, now) == []
    assert await facts.register_subscriptions(raw, organization_id, [], 0, now) == []
    assert await facts.register_metrics(raw, organization_id, [], 0, now) == []
    assert await invoice_readings.ending_in(connection, organization_id, "acme", []) == []
    assert await operator_events.add(connection, [], now) == []
    await evaluation_failures.add(connection, organization_id, [], now)
