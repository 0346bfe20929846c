"""Deadlocks and serialization failures in every kind of transaction: callers see success, and each effect once."""

from datetime import timedelta

import pytest

from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.balances.holder import Holder
from tests.support.enforcement.gateway import gateway_of
from tests.support.faults.conflicts import STATES, Conflicts
from tests.support.usage.caller import Caller, until
from tests.support.usage.erasing import NEIGHBOUR, PERSON, erased, ledger, live, rows_with, wide_alerts

# What the feed and the audit log have not placed yet, and what a repeated try only notes.
MOVING = {"feed_entry", "feed_pending", "audit_entry", "audit_pending"}


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> Conflicts:
    """Conflicts that are not on yet."""
    made = Conflicts()
    made.install(monkeypatch)
    return made


async def test_calls_usage_visits_and_erasures_have_each_effect_once(
    caller: Caller, database: Database, clock: ManualClock, conflicts: Conflicts
) -> None:
    await wide_alerts(caller)
    conflicts.on = True
    await live(caller, database, clock, PERSON, endpoint=False)

    async def each_kind_failed_as_often() -> bool:
        return set(conflicts.failed.values()) == {len(STATES)}

    await until(each_kind_failed_as_often)  # background tasks, such as the probe of the database, pause between tries
    conflicts.on = False
    await live(caller, database, clock, NEIGHBOUR, endpoint=False)
    written = conflicts.tables
    assert {"customer", "subscription", "balance", "balance_adjustment", "usage_limit", "invoice", "alert"} <= written
    assert {"event", "gauge", "alert_state", "notification", "voided_event", "customer_evaluation"} <= written

    async def visited() -> bool:
        [[waiting]] = await caller.rows(
            "SELECT (SELECT count(*) FROM alert WHERE visit_after IS NOT NULL)"
            " + (SELECT count(*) FROM customer_evaluation)"
        )
        return int(waiting) == 0

    await until(visited)
    here, there = await rows_with(caller, PERSON), await rows_with(caller, NEIGHBOUR)
    for table in MOVING:
        here.pop(table, None)
        there.pop(table, None)
    assert here == there
    booked = await ledger(caller, PERSON)
    assert [row[-3:] for row in booked] == [row[-3:] for row in await ledger(caller, NEIGHBOUR)]
    conflicts.on = True
    job = await erased(caller)
    assert await rows_with(caller, PERSON) == {}
    assert await ledger(caller, job.pseudonym) == booked
    assert "erasure_job" in conflicts.tables


async def test_timers_have_each_effect_once(caller: Caller, clock: ManualClock, conflicts: Conflicts) -> None:
    holder = Holder(caller)
    await wide_alerts(caller)
    now = clock.now()
    await holder.put("c1", spans=[("100", now - timedelta(days=1), now + timedelta(hours=1))])
    conflicts.on = True
    clock.advance(timedelta(hours=2))
    [transitions] = await holder.notified(1)
    assert [one.level for one in transitions] == ["90"]
    assert {"wallet", "notification"} <= conflicts.tables


async def test_reservations_have_each_effect_once(caller: Caller, conflicts: Conflicts) -> None:
    async with gateway_of(caller) as gateway:
        conflicts.on = True
        await gateway.reserve("r1", "3")
    assert {"reservation"} <= conflicts.tables
    assert await caller.rows("SELECT count(*) FROM reservation WHERE organization_id = %(organization_id)s") == [(1,)]
