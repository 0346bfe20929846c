"""The registry of rules: what a process reads, when it reads again, and what it forgets."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from engine.rules.loading import Registered
from engine.rules.organization_rules import OrganizationRules
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from evaluator.routing import Router
from generated.tidemark.v1 import (
    customer_pb2,
)
from runtime.clock import ManualClock
from store.alerts import active_rules
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres.database import Database, DriverConnection
from store.rules import rule_changes
from store.rules.rule_changes import RuleChanges
from tests.support.usage.caller import Caller, on_customer, usage_alert

GRACE = timedelta(days=34)


def event(customer: str, clock: ManualClock) -> UsageEvent:
    return UsageEvent("e", customer, clock.now(), "calls", ZERO, "pro", None, None, {})


def known(router: Router) -> dict[str, set[str]]:
    """The customers that the router knows, each with the subscriptions of it that the router knows."""
    return {customer_id: set(one.subscriptions) for customer_id, one in router.known.items()}


async def test_new_process_reads_only_the_customers_that_events_name(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("10"))
    await caller.send(*(caller.event("e", customer=f"c{number}", subscription="pro") for number in range(5)))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    asked: list[int] = []
    changes_since = rule_changes.changes_since

    async def recorded(
        connection: DriverConnection, organization_id: int, epoch: int, limit: int
    ) -> RuleChanges | None:
        asked.append(epoch)
        return await changes_since(connection, organization_id, epoch, limit)

    monkeypatch.setattr(rule_changes, "changes_since", recorded)
    database = Database(caller.database_url, pool_size=1)
    rules = RulesRegistry().of(organization_id)
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        router = await rules.router(connection, epoch)
        assert len(list(router.wide)) == 1
        created = rules.begin()
        await rules.load_facts(connection, router, [event("c1", clock), event("c3", clock)], clock.now(), created)
    rules.committed(created)
    assert not created.customers
    assert known(router) == {"c1": {"pro"}, "c3": {"pro"}}
    assert not asked
    await caller.create(usage_alert("20"))
    async with database.transaction() as connection:
        later = await organizations.lock_shared(connection, organization_id)
        younger = await rules.router(connection, later)
    await database.close()
    assert set(asked) == {epoch}  # the server of the caller asks, too
    assert younger is router
    assert younger.epoch == later > epoch
    assert known(router) == {"c1": {"pro"}, "c3": {"pro"}}
    assert len(list(router.wide)) == 2


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
                rules.rolled_back(router, created)
                assert known(router) == {"c0": set()}
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
        return router.customer("acme").plan_id

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
        await connection.rollback()
    assert await plan_of_acme() == "basic"
    # Another change gets the same epoch.
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="silver"))
    assert await plan_of_acme() == "silver"
    await database.close()


async def test_readers_share_the_wide_alerts_of_ingest_and_none_of_its_customers(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.create(usage_alert("10"))
    await caller.send(caller.event("e", customer="acme"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    read: list[int] = []
    wide_rules = active_rules.wide_rules

    async def recorded(connection: DriverConnection, organization_id: int) -> list[AlertRule]:
        read.append(organization_id)
        return await wide_rules(connection, organization_id)

    monkeypatch.setattr(active_rules, "wide_rules", recorded)
    database = Database(caller.database_url, pool_size=1)
    registry = RulesRegistry()
    rules = registry.of(organization_id)
    async with database.transaction() as connection:
        router = await rules.router(connection, await organizations.lock_shared(connection, organization_id))
        registered = rules.begin()
        await rules.load_facts(connection, router, [event("acme", clock)], clock.now(), registered)
        rules.committed(registered)
    await caller.create(usage_alert("20"))
    async with Transactions(database, clock, GRACE, registry).open(Organization(organization_id, "")) as transaction:
        assert transaction.router.wide is router.wide
        assert len(list(router.wide)) == 2
        assert (known(transaction.router), known(router)) == ({}, {"acme": {"pro"}})
    assert read == [organization_id]
    await database.close()


async def test_the_alerts_of_a_customer_are_read_when_an_event_names_it(caller: Caller, clock: ManualClock) -> None:
    own = await caller.create(usage_alert("10", scope=on_customer("c1")))
    other = await caller.create(usage_alert("10", scope=on_customer("c2")))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules = RulesRegistry().of(organization_id)

    async def named(*customers: str) -> dict[str, set[str]]:
        """The alerts of each known customer after events named these."""
        async with database.transaction() as connection:
            router = await rules.router(connection, await organizations.lock_shared(connection, organization_id))
            registered = rules.begin()
            events = [event(customer, clock) for customer in customers]
            await rules.load_facts(connection, router, events, clock.now(), registered)
        rules.committed(registered)
        assert not list(router.wide)
        return {name: {rule.alert_id for rule in one.facts.alerts} for name, one in router.known.items()}

    assert await named("c1", "c3") == {"c1": {own.alert_id}, "c3": set()}
    second = await caller.create(usage_alert("20", scope=on_customer("c1")))
    third = await caller.create(usage_alert("20", scope=on_customer("c3")))
    assert await named("c3") == {"c1": {own.alert_id}, "c3": {third.alert_id}}
    assert await named("c1", "c2") == {
        "c1": {own.alert_id, second.alert_id},
        "c2": {other.alert_id},
        "c3": {third.alert_id},
    }
    for alert in (own, third):
        await caller.archive(alert.alert_id)
    assert await named("c1", "c3") == {"c1": {second.alert_id}, "c2": {other.alert_id}, "c3": set()}
    await database.close()


async def test_the_router_forgets_the_customers_that_no_commit_names(caller: Caller, clock: ManualClock) -> None:
    await caller.send(*(caller.event("e", customer=f"c{number}") for number in range(20)))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules = OrganizationRules(organization_id, max_customers=5)
    open_commit = rules.begin()

    async def name(registered: Registered, *customers: int) -> set[str]:
        async with database.transaction() as connection:
            router = await rules.router(connection, await organizations.lock_shared(connection, organization_id))
            events = [event(f"c{number}", clock) for number in customers]
            await rules.load_facts(connection, router, events, clock.now(), registered)
        return set(router.known)

    await name(open_commit, 0)
    for number in range(1, 20):
        registered = rules.begin()
        found = await name(registered, 1, number)
        rules.committed(registered)
        assert {"c0", "c1", f"c{number}"} <= found
        assert len(found) <= 5 + 2
    rules.committed(open_commit)
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
        assert len(list((await rules.router(connection, epoch)).wide)) == 2
    async with database.transaction() as connection:
        parameters = {"organization": organization_id, "epoch": before}
        for statement in (
            "DELETE FROM alert WHERE organization_id = :organization AND changed_epoch > :epoch",
            "UPDATE organization SET epoch = :epoch WHERE organization_id = :organization",
        ):
            await connection.execute(text(statement), parameters)
    async with database.transaction() as connection:
        epoch = await organizations.lock_shared(connection, organization_id)
        router = await rules.router(connection, epoch)
        assert (router.epoch, {rule.alert_id for rule in router.wide}) == (before, {kept.alert_id})
    await database.close()
