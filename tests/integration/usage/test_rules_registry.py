"""The registry of rules: what a process reads, when it reads again, and what it forgets."""

import pytest
from sqlalchemy import text

from engine.rules.registry import RulesRegistry
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from generated.tidemark.v1 import (
    customer_pb2,
)
from runtime.clock import ManualClock
from store.alerts import alerts as stored_alerts
from store.identity import organizations
from store.postgres.database import Connection, Database, DriverConnection
from store.usage import routing_facts as facts
from tests.support.usage.caller import Caller, usage_alert


def event(customer: str, clock: ManualClock) -> UsageEvent:
    return UsageEvent("e", customer, clock.now(), "calls", ZERO, "pro", None, None, {})


async def test_new_process_reads_only_the_customers_that_events_name(
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
    rules = RulesRegistry().of(organization_id)
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        router = await rules.router(connection, epoch)
        assert len(router.alerts) == 1
        created = rules.begin()
        await rules.load_facts(connection, router, [event("c1", clock), event("c3", clock)], clock.now(), created)
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


async def test_customer_is_registered_again_after_its_transaction_rolled_back(
    caller: Caller, clock: ManualClock
) -> None:
    await caller.send(caller.event("e", customer="c0"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules = RulesRegistry().of(organization_id)
    for attempt in range(2):
        async with database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
            router = await rules.router(connection, epoch)
            created = rules.begin()
            events = [event("c0", clock), event("new", clock)]
            await rules.load_facts(connection, router, events, clock.now(), created)
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


async def test_change_that_rolls_back_leaves_the_shared_rules_unchanged(caller: Caller, clock: ManualClock) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="basic"))
    await caller.send(caller.event("e", customer="acme"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules = RulesRegistry().of(organization_id)

    async def plan_of_acme() -> str | None:
        """The plan with which ingest routes the customer now."""
        async with database.transaction() as connection:
            router = await rules.router(connection, await organizations.lock_shared(connection, organization_id))
            registered = rules.begin()
            await rules.load_facts(connection, router, [event("acme", clock)], clock.now(), registered)
        rules.committed(registered)
        return router.customers["acme"].plan_id

    assert await plan_of_acme() == "basic"
    await caller.create(usage_alert("10"))
    async with database.transaction() as connection:
        epoch = await organizations.begin_change(connection, organization_id)
        await connection.execute(
            text(
                "UPDATE customer SET plan_id = 'gold', changed_epoch = :epoch WHERE organization_id = :organization"
            ),
            {"epoch": epoch, "organization": organization_id},
        )
        router = await rules.alerts_at(connection, epoch - 1)
        assert (router.epoch, len(router.alerts)) == (epoch - 1, 1)
        await connection.rollback()
    assert await plan_of_acme() == "basic"
    # Another change gets the same epoch.
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="silver"))
    assert await plan_of_acme() == "silver"
    await database.close()


async def test_readers_and_ingest_share_the_cached_alerts(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("10"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    since: list[int] = []
    changed_since = stored_alerts.changed_since

    async def recorded(connection: Connection, organization_id: int, epoch: int) -> object:
        since.append(epoch)
        return await changed_since(connection, organization_id, epoch)

    database = Database(caller.database_url, pool_size=1)
    rules = RulesRegistry().of(organization_id)
    await caller.create(usage_alert("20"))
    monkeypatch.setattr(stored_alerts, "changed_since", recorded)
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        reader = await rules.alerts_at(connection, epoch)
        assert await rules.alerts_at(connection, epoch) is reader
        router = await rules.router(connection, epoch)
        assert await rules.alerts_at(connection, epoch) is router
    assert set(reader.alerts) == set(router.alerts)
    assert len(router.alerts) == 2
    assert since == [-1]
    await database.close()


async def test_rules_are_read_again_when_the_epoch_of_the_database_is_lower(
    caller: Caller, clock: ManualClock
) -> None:
    """A promoted replica may lack the last changes; other changes then get the same epochs."""
    kept = await caller.create(usage_alert("10"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules = RulesRegistry().of(organization_id)
    async with database.transaction() as connection:
        before = await organizations.lock_shared(connection, organization_id)
    await caller.create(usage_alert("20"))
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        assert len((await rules.router(connection, epoch)).alerts) == 2
    async with database.transaction() as connection:
        parameters = {"organization": organization_id, "epoch": before}
        for statement in (
            "DELETE FROM alert WHERE organization_id = :organization AND changed_epoch > :epoch",
            "UPDATE organization SET epoch = :epoch WHERE organization_id = :organization",
        ):
            await connection.execute(text(statement), parameters)
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        for router in (await rules.alerts_at(connection, epoch), await rules.router(connection, epoch)):
            assert (router.epoch, set(router.alerts)) == (before, {kept.alert_id})
    await database.close()
