"""Statements about times, in sessions with other settings than those that sessions of Tidemark set.

The sessions that the nodes of a cluster open to one another have the TimeZone and the DateStyle of the node.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import make_url

from evaluator.balances import Unit
from evaluator.enforced_limits import Since
from evaluator.events import UsageEvent
from evaluator.limit_windows import BILLING_PERIOD
from evaluator.voids import EventKey
from store.postgres.database import Database, DriverConnection
from store.rules import routing_facts
from store.usage import events, stored_ids, voids
from tests.support.databases import Template
from tests.support.postgres.nodes import workers
from tests.support.server.sharing import own_database

pytestmark = own_database

# In New York, a month after the begin of March in UTC is 29 March.
SETTINGS = {"TimeZone": "America/New_York", "DateStyle": "German, DMY"}

SENT = [
    UsageEvent(f"e{time.day}", customer, time, "calls", Decimal(2), None, None, None, {})
    for time in (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC) - timedelta(microseconds=1))
    for customer in ("acme", "beta", "gamma", "delta")
]
KEYS = [EventKey(one.customer_id, one.event_id, one.event_time) for one in SENT]
ORGANIZATION = 1


@pytest.fixture
async def connection(template: Template, database_url: str) -> AsyncIterator[DriverConnection]:
    """A transaction with these events, on nodes whose sessions have these settings."""
    name = make_url(database_url).database
    for url in template.nodes.urls_of(str(name)):
        with psycopg.connect(url, autocommit=True) as node:
            for setting, value in SETTINGS.items():
                node.execute(f"ALTER DATABASE {name} SET {setting} = {value!r}".encode())
    database = Database(database_url, pool_size=1)
    async with database.raw_transaction() as opened:
        await opened.execute(f"SET LOCAL TimeZone = {SETTINGS['TimeZone']!r}".encode())
        await events.insert(opened, ORGANIZATION, SENT[0].event_time, SENT)
        yield opened
    await database.close()


async def test_events_of_the_whole_month_are_found_as_duplicates(connection: DriverConnection) -> None:
    assert await events.stored_alike(connection, ORGANIZATION, SENT) == set(range(len(SENT)))
    assert await events.stored_of(connection, ORGANIZATION, SENT) == {one.identity for one in SENT}
    await events.check_stored(connection, ORGANIZATION, SENT)
    sent = [(one.customer_id, one.event_id, one.event_time) for one in SENT]
    found = await stored_ids.found(await stored_ids.send_read(connection, ORGANIZATION, sent))
    assert found == {one.identity for one in SENT}


async def test_events_of_the_whole_month_are_found_to_be_voided(connection: DriverConnection) -> None:
    every = dict(enumerate([[one] for one in SENT]))
    assert await voids.read(connection, ORGANIZATION, KEYS) == every
    assert await voids.lock(connection, ORGANIZATION, KEYS) == every
    await voids.void(connection, ORGANIZATION, SENT, SENT[0].event_time, None)
    assert await voids.read(connection, ORGANIZATION, KEYS) == {}
    assert await voids.voided_before(connection, ORGANIZATION, KEYS) == set(range(len(SENT)))


async def test_events_of_another_month_are_not_found(connection: DriverConnection) -> None:
    later = [one._replace(event_time=one.event_time + timedelta(days=31)) for one in SENT]
    assert await events.stored_of(connection, ORGANIZATION, later) == set()
    keys = [EventKey(one.customer_id, one.event_id, one.event_time) for one in later]
    assert await voids.read(connection, ORGANIZATION, keys) == {}
    assert await voids.lock(connection, ORGANIZATION, keys) == {}


@pytest.mark.skipif(not workers(), reason="sessions between nodes; no cluster is named")
async def test_times_of_limits_are_read(connection: DriverConnection) -> None:
    parameters = {"organization_id": ORGANIZATION, "now": SENT[-1].event_time}
    await connection.execute(
        "INSERT INTO customer (organization_id, customer_id, anchor_time, cadence, interval_count, time_zone,"
        " create_time, update_time, changed_epoch)"
        " VALUES (%(organization_id)s, 'acme', %(now)s, 'month', 1, 'UTC', %(now)s, %(now)s, 0)",
        parameters,
    )
    await connection.execute(
        "INSERT INTO usage_limit (organization_id, limit_id, customer_id, metric_id, groups, natural_key, amount,"
        " as_of_time, create_time, update_time, changed_epoch)"
        " VALUES (%(organization_id)s, 'l', 'acme', 'calls', '[]', 'k', 1, %(now)s, %(now)s, %(now)s, 7)",
        parameters,
    )
    shown = await connection.execute("SELECT current_setting('DateStyle') FROM customer")
    assert await shown.fetchall() == [(SETTINGS["DateStyle"],)]
    [facts] = await routing_facts.customers(connection, ORGANIZATION, ["acme"], with_alerts=False)
    assert facts.limits.enforced.since((Unit(None, "calls"), (), BILLING_PERIOD)) == Since(7, SENT[-1].event_time)
