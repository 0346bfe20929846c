"""The rules that a process remembers: what it reads of them, and when."""

import pytest

from engine.rules.rules import Rules
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from store.identity import organizations
from store.postgres.database import Database, DriverConnection
from store.usage import routing_facts as facts
from tests.support.usage.caller import Caller, usage_alert


def event(customer: str, clock: ManualClock) -> UsageEvent:
    return UsageEvent("e", customer, clock.now(), "calls", ZERO, "pro", None, None, {})


async def test_a_process_that_starts_reads_whom_it_meets_and_nobody_else(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("10"))
    await caller.send(*(caller.event("e", customer=f"c{number}", subscription="pro") for number in range(5)))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    asked: list[int] = []
    changed_since = facts.changed_since

    async def recorded(connection: DriverConnection, organization_id: int, epoch: int) -> object:
        asked.append(epoch)
        return await changed_since(connection, organization_id, epoch)

    monkeypatch.setattr(facts, "changed_since", recorded)
    database = Database(caller.database_url, pool_size=1)
    rules = Rules(organization_id)
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        router = await rules.router(connection, epoch)
        assert len(router.alerts) == 1
        created = rules.begin()
        await rules.meet(connection, router, [event("c1", clock), event("c3", clock)], clock.now(), created)
    rules.committed(created)
    assert not created.customers
    assert set(router.customers) == {"c1", "c3"}
    assert set(router.subscriptions) == {("c1", "pro"), ("c3", "pro")}
    assert not asked
    await caller.create(usage_alert("20"))
    async with database.transaction() as connection:
        later = await organizations.lock_shared(connection, organization_id)
        younger = await rules.router(connection, later)
    await database.close()
    assert asked == [epoch]
    assert later > epoch
    assert set(younger.customers) == {"c1", "c3"}
    assert len(younger.alerts) == 2
    assert len(router.alerts) == 1


async def test_whom_a_transaction_created_is_created_again_after_it_was_rolled_back(
    caller: Caller, clock: ManualClock
) -> None:
    await caller.send(caller.event("e", customer="c0"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules = Rules(organization_id)
    for attempt in range(2):
        async with database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
            router = await rules.router(connection, epoch)
            created = rules.begin()
            events = [event("c0", clock), event("new", clock)]
            await rules.meet(connection, router, events, clock.now(), created)
            assert created.customers == {"new"}
            assert created.subscriptions == {("c0", "pro"), ("new", "pro")}
            if attempt == 0:
                await connection.rollback()
                rules.rolled_back(router, created, events)
                assert set(router.customers) == {"c0"}
    await database.close()
    rows = await caller.rows(
        "SELECT customer_id FROM customer WHERE organization_id = %(organization_id)s ORDER BY 1"
    )
    assert rows == [("c0",), ("new",)]
