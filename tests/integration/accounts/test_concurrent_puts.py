"""Concurrent puts of one fact: an older put that gets the lock last changes nothing."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from evaluator.aggregation import Aggregation
from store.accounts import plans
from store.accounts.metrics import MetricFact, MetricFixed, StoredMetric
from store.accounts.plans import PlanFact, StoredPlan
from store.identity import organizations
from store.postgres.database import Connection, Database
from tests.support.facts.metrics import put_metric_fact
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock
from tests.support.waiting import within

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def org(database: Database) -> int:
    """An organization with the plan `gold`, as of an hour ago."""
    async with database.transaction() as connection:
        org = await organizations.get_or_create(connection, "ours", NOW)
        await put(connection, org, "first", NOW - HOUR)
    return org


async def put(connection: Connection, org: int, name: str, as_of_time: datetime) -> StoredPlan:
    """Puts the plan `gold`."""
    fact = PlanFact(plan_id="gold", display_name=name, custom_fields={}, as_of_time=as_of_time)
    return (await plans.put(connection, org, fact, NOW)).stored


@pytest.mark.parametrize("newer", ["second", "first"])
@pytest.mark.parametrize("older", ["older", "first"])
async def test_an_older_put_that_waited_for_a_newer_one_changes_nothing(
    database: Database, org: int, newer: str, older: str
) -> None:
    async def put_older() -> StoredPlan:
        async with database.transaction() as connection:
            return await put(connection, org, older, NOW - HOUR / 2)

    async with database.transaction() as connection:
        await put(connection, org, newer, NOW)
        late = asyncio.create_task(put_older())
        # A put without a change waits for the row, any other for the organization's lock.
        await until_it_waits_for_a_lock(database, late)
    async with within("the older put"):
        await late
    async with database.transaction() as connection:
        stored = await plans.get(connection, org, "gold")
    assert stored is not None
    assert (stored.display_name, stored.as_of_time) == (newer, NOW)


async def test_a_put_of_the_same_time_with_another_aggregation_is_refused(database: Database, org: int) -> None:
    async def put_with(aggregation: Aggregation, as_of_time: datetime) -> StoredMetric:
        fact = MetricFact(
            "calls", display_name="", aggregation=aggregation, unique_property=None, as_of_time=as_of_time
        )
        return await put_metric_fact(database, org, fact, NOW)

    await put_with(Aggregation.SUM, NOW)
    with pytest.raises(MetricFixed):
        await put_with(Aggregation.MAX, NOW)
    assert (await put_with(Aggregation.MAX, NOW - HOUR)).aggregation is Aggregation.SUM
