"""Customers, subscriptions and metrics in PostgreSQL: older puts are superseded, changes raise the epoch."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from evaluator.aggregation import Aggregation
from evaluator.periods import DEFAULT_CYCLE, BillingCycle, Cadence
from store.accounts import customer_puts, customers, metrics, subscription_puts, subscriptions
from store.accounts.customers import CustomerFact, StoredCustomer
from store.accounts.metrics import MetricFact, MetricFixed, StoredMetric
from store.accounts.subscriptions import StoredSubscription, SubscriptionFact
from store.identity import organizations
from store.postgres.database import Database, driver
from store.tables.accounts import customer, organization
from tests.support.facts.metrics import put_metric_fact
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BERLIN = BillingCycle(datetime(2026, 1, 31, 9, tzinfo=UTC), Cadence.QUARTER, 2, "Europe/Berlin")


@pytest.fixture
async def org(database: Database) -> int:
    async with database.transaction() as connection:
        return await organizations.get_or_create(connection, "acme", NOW)


async def epoch(database: Database, organization_id: int) -> int:
    async with database.transaction() as connection:
        return await organizations.lock_shared(connection, organization_id)


async def put_customer(database: Database, organization_id: int, **changes: Any) -> StoredCustomer:
    facts: dict[str, Any] = {
        "display_name": "",
        "plan_id": None,
        "plan_start_time": None,
        "plan_end_time": None,
        "currency": "USD",
        "cycle": DEFAULT_CYCLE,
        "custom_fields": {},
        "as_of_time": NOW,
    }
    now = changes.pop("now", NOW)
    fact = CustomerFact(**{"customer_id": "c1", **facts, **changes})
    async with database.transaction() as connection:
        raw = await driver(connection)
        if unlocked := await customer_puts.put_unlocked(raw, organization_id, [fact], now, change=True):
            return unlocked[0].stored
        epoch = await organizations.begin_change(connection, organization_id)
        [put] = await customer_puts.put(raw, organization_id, [fact], epoch, now)
        assert not isinstance(put, Exception)
        return put.put.stored


async def put_subscription(database: Database, organization_id: int, **changes: Any) -> StoredSubscription:
    facts: dict[str, Any] = {
        "plan_id": None,
        "plan_start_time": None,
        "plan_end_time": None,
        "currency": None,
        "cycle": None,
        "custom_fields": {},
        "start_time": None,
        "end_time": None,
        "as_of_time": NOW,
    }
    now = changes.pop("now", NOW)
    fact = SubscriptionFact(**{"customer_id": "c1", "subscription_id": "s1", **facts, **changes})
    async with database.transaction() as connection:
        raw = await driver(connection)
        if unlocked := await subscription_puts.put_unlocked(raw, organization_id, [fact], now, change=True):
            return unlocked[0].stored
        epoch = await organizations.begin_change(connection, organization_id)
        [put] = await subscription_puts.put(raw, organization_id, [fact], epoch, now)
        assert not isinstance(put, Exception)
        return put.stored


async def put_metric(database: Database, organization_id: int, **changes: Any) -> StoredMetric:
    facts: dict[str, Any] = {
        "display_name": "",
        "aggregation": Aggregation.SUM,
        "unique_property": None,
        "as_of_time": NOW,
    }
    now = changes.pop("now", NOW)
    fact = MetricFact(**{"metric_id": "tokens", **facts, **changes})
    return await put_metric_fact(database, organization_id, fact, now)


async def test_a_customer_comes_back_as_it_was_put(database: Database, org: int) -> None:
    put = await put_customer(database, org, display_name="Ann", plan_id="pro", currency="EUR", cycle=BERLIN)
    async with database.transaction() as connection:
        assert await customers.get(connection, org, "c1") == put
    assert put == StoredCustomer(org, "c1", "Ann", "pro", "EUR", BERLIN, NOW, NOW, NOW)


async def test_a_put_replaces_the_whole_fact(database: Database, org: int) -> None:
    await put_customer(database, org, display_name="Ann", plan_id="pro", cycle=BERLIN)
    put = await put_customer(database, org, as_of_time=NOW + HOUR, now=NOW + HOUR)
    assert put == StoredCustomer(org, "c1", "", None, "USD", DEFAULT_CYCLE, NOW + HOUR, NOW, NOW + HOUR)


async def test_an_older_put_does_not_replace_a_newer_fact(database: Database, org: int) -> None:
    newer = await put_customer(database, org, display_name="new", as_of_time=NOW)
    before = await epoch(database, org)
    assert await put_customer(database, org, display_name="old", as_of_time=NOW - HOUR) == newer
    assert await epoch(database, org) == before


async def test_a_later_put_with_the_same_as_of_time_replaces_the_fact(database: Database, org: int) -> None:
    await put_customer(database, org, display_name="first")
    assert (await put_customer(database, org, display_name="second")).display_name == "second"


async def test_a_change_raises_the_epoch_and_marks_the_row_with_it(database: Database, org: int) -> None:
    before = await epoch(database, org)
    await put_customer(database, org, plan_id="pro")
    after = await epoch(database, org)
    assert after == before + 1
    async with database.transaction() as connection:
        assert await connection.scalar(select(customer.c.changed_epoch)) == after


async def test_a_repeated_put_changes_only_the_as_of_time(database: Database, org: int) -> None:
    await put_customer(database, org, plan_id="pro")
    before = await epoch(database, org)
    again = await put_customer(database, org, plan_id="pro", as_of_time=NOW + HOUR, now=NOW + HOUR)
    assert again.as_of_time == NOW + HOUR
    assert again.update_time == NOW
    assert await epoch(database, org) == before


async def test_a_customer_registered_by_usage_accepts_any_as_of_time(database: Database, org: int) -> None:
    await put_subscription(database, org)  # creates its customer as usage would
    async with database.transaction() as connection:
        seen = await customers.get(connection, org, "c1")
    assert seen == StoredCustomer(org, "c1", "", None, "USD", DEFAULT_CYCLE, None, NOW, NOW)
    put = await put_customer(database, org, plan_id="pro", as_of_time=NOW - 1000 * HOUR)
    assert put.plan_id == "pro"


async def test_concurrent_puts_keep_the_newest_customer(database: Database, org: int) -> None:
    hours = [3, 9, 1, 7, 5, 8, 2, 6, 4, 0]
    await asyncio.gather(
        *(put_customer(database, org, display_name=f"at {hour}", as_of_time=NOW + hour * HOUR) for hour in hours)
    )
    async with database.transaction() as connection:
        stored = await customers.get(connection, org, "c1")
    assert stored is not None
    assert (stored.display_name, stored.as_of_time) == ("at 9", NOW + 9 * HOUR)


async def test_a_put_waits_for_ingest_in_progress(database: Database, org: int) -> None:
    async with database.transaction() as ingest:
        held = await organizations.lock_shared(ingest, org)
        put = asyncio.create_task(put_customer(database, org, plan_id="pro"))
        await until_it_waits_for_a_lock(database, put)
        assert not put.done()
        assert await ingest.scalar(select(organization.c.epoch)) == held
    assert (await put).plan_id == "pro"
    assert await epoch(database, org) == held + 1


async def test_a_subscription_without_a_cycle_has_the_cycle_of_its_customer(database: Database, org: int) -> None:
    await put_customer(database, org, cycle=BERLIN)
    inherits = await put_subscription(database, org)
    assert (inherits.cycle, inherits.customer_cycle) == (None, BERLIN)
    own = await put_subscription(
        database, org, subscription_id="s2", cycle=DEFAULT_CYCLE, start_time=NOW, end_time=NOW + HOUR
    )
    assert own == StoredSubscription(
        org, "c1", "s2", None, None, DEFAULT_CYCLE, BERLIN, NOW, NOW + HOUR, NOW, NOW, NOW
    )


async def test_two_customers_can_have_the_same_subscription_id(database: Database, org: int) -> None:
    await put_subscription(database, org, customer_id="c1", plan_id="a")
    await put_subscription(database, org, customer_id="c2", plan_id="b")
    async with database.transaction() as connection:
        first = await subscriptions.get(connection, org, "c1", "s1")
        second = await subscriptions.get(connection, org, "c2", "s1")
        assert await subscriptions.get(connection, org, "c3", "s1") is None
    assert first is not None
    assert second is not None
    assert (first.plan_id, second.plan_id) == ("a", "b")


@pytest.mark.parametrize(
    "other",
    [
        {"aggregation": Aggregation.MAX},
        {"aggregation": Aggregation.UNIQUE_COUNT, "unique_property": "seat"},
    ],
)
async def test_a_put_that_changes_the_aggregation_of_a_metric_is_refused(
    database: Database, org: int, other: dict[str, Any]
) -> None:
    await put_metric(database, org)
    before = await epoch(database, org)
    with pytest.raises(MetricFixed) as raised:
        await put_metric(database, org, display_name="renamed", as_of_time=NOW + HOUR, **other)
    assert raised.value.stored.aggregation is Aggregation.SUM
    async with database.transaction() as connection:
        stored = await metrics.get(connection, org, "tokens")
    assert stored == StoredMetric(org, "tokens", "", Aggregation.SUM, None, NOW, NOW, NOW)
    assert await epoch(database, org) == before


async def test_a_put_that_changes_the_unique_property_of_a_metric_is_refused(database: Database, org: int) -> None:
    unique = {"aggregation": Aggregation.UNIQUE_COUNT, "unique_property": "seat"}
    await put_metric(database, org, **unique)
    assert (await put_metric(database, org, **unique, display_name="Seats")).display_name == "Seats"
    with pytest.raises(MetricFixed):
        await put_metric(database, org, **{**unique, "unique_property": "user"})


async def test_an_older_put_with_another_aggregation_is_superseded(database: Database, org: int) -> None:
    newer = await put_metric(database, org)
    older = await put_metric(database, org, aggregation=Aggregation.MAX, as_of_time=NOW - HOUR)
    assert older == newer


async def test_one_of_two_concurrent_aggregations_of_a_new_metric_is_stored(database: Database, org: int) -> None:
    results = await asyncio.gather(
        *(put_metric(database, org, aggregation=kind) for kind in (Aggregation.SUM, Aggregation.MAX)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["MetricFixed", "StoredMetric"]


async def test_lists_continue_after_the_last_row_in_byte_order(database: Database, org: int) -> None:
    ids = ["B", "a", "b", "é", "Z", "a-1"]
    for number, customer_id in enumerate(ids):
        plan_id = "pro" if number % 2 else None
        await put_customer(database, org, customer_id=customer_id, plan_id=plan_id)
        await put_subscription(database, org, customer_id=customer_id, subscription_id="s", plan_id=plan_id)
        await put_metric(database, org, metric_id=customer_id)
    expected = sorted(ids, key=str.encode)
    seen: list[str] = []
    seen_subscriptions: list[str] = []
    seen_metrics: list[str] = []
    async with database.transaction() as connection:
        while page := await customers.list_page(
            connection, org, customers.CustomerFilter(), after=seen[-1] if seen else None, limit=2
        ):
            seen += [item.customer_id for item in page]
        while their_subscriptions := await subscriptions.list_page(
            connection,
            org,
            subscriptions.SubscriptionFilter(),
            after=(seen_subscriptions[-1], "s") if seen_subscriptions else None,
            limit=4,
        ):
            seen_subscriptions += [item.customer_id for item in their_subscriptions]
        while found := await metrics.list_page(
            connection, org, after=seen_metrics[-1] if seen_metrics else None, limit=4
        ):
            seen_metrics += [item.metric_id for item in found]
        pro = await customers.list_page(
            connection, org, customers.CustomerFilter(plan_id="pro"), after=None, limit=10
        )
        of_one = await subscriptions.list_page(
            connection, org, subscriptions.SubscriptionFilter("b"), after=None, limit=10
        )
    assert seen == seen_subscriptions == seen_metrics == expected
    assert [item.customer_id for item in pro] == sorted(ids[1::2], key=str.encode)
    assert [item.customer_id for item in of_one] == ["b"]


async def test_an_organization_sees_only_its_own_facts(database: Database, org: int) -> None:
    async with database.transaction() as connection:
        other = await organizations.get_or_create(connection, "other", NOW)
    await put_customer(database, org, plan_id="pro")
    await put_subscription(database, org)
    await put_metric(database, org)
    async with database.transaction() as connection:
        assert await customers.get(connection, other, "c1") is None
        assert await subscriptions.get(connection, other, "c1", "s1") is None
        assert await metrics.get(connection, other, "tokens") is None
        assert await customers.list_page(connection, other, customers.CustomerFilter(), after=None, limit=9) == []
        assert await metrics.list_page(connection, other, after=None, limit=9) == []
        every = subscriptions.SubscriptionFilter()
        listed = await subscriptions.list_page(connection, other, every, after=None, limit=9)
        assert listed == []
    mine = await put_customer(database, org, as_of_time=NOW + HOUR)
    theirs = await put_customer(database, other, plan_id="basic", as_of_time=NOW + 2 * HOUR)
    async with database.transaction() as connection:
        assert await customers.get(connection, org, "c1") == mine
        assert await customers.get(connection, other, "c1") == theirs
