"""Every list has one order, and pages lose no row when many rows are equal in the first column of the order.

Without the last column in ORDER BY, or in the comparison with the last row of a page, the order of equals depends on
the query plan. Here the database plans without indexes, and rows were written in another order than the
list's, so that such a statement fails the test.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, text

from evaluator.periods import DEFAULT_CYCLE
from runtime.clock import ManualClock
from store.accounts import customers, invoices, metrics, plans, subscriptions
from store.alerts import lists
from store.alerts.lists import AlertFilter
from store.balances import balances
from store.balances import entries as balance_entries
from store.deliveries import operator_event_log, redelivery_jobs
from store.identity import organizations
from store.notifications import feed
from store.notifications import history as notification_history
from store.notifications.feed import NotificationFilter
from store.postgres.database import Connection, Database
from store.tables.accounts import customer, metric, subscription
from store.tables.balances import balance, balance_entry
from store.tables.feed import feed as feed_table
from store.tables.feed import feed_entry
from store.tables.invoices import invoice
from store.tables.notifications import notification
from store.tables.plans import plan
from store.tables.redelivery import redelivery_job
from store.tables.webhooks import operator_event
from store.views.customer_views import CustomerView
from tests.support.alerts.stored import NEW_ALERT, create
from tests.support.databases import Template

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
NUMBERS = range(10, 22)
SHUFFLED = random.Random(7).sample(NUMBERS, len(NUMBERS))
BOTH = [(f"customer-{number % 2}", f"id-{number}") for number in SHUFFLED]

# What reads a page after a row, what makes a row's key of it, and whether the newest come first.
Listing = tuple[Callable[[Connection, int, Any], Awaitable[Sequence[Any]]], Callable[[Any], Any], bool]


@pytest.fixture(scope="module")
def url(template: Template) -> Iterator[str]:
    """The URL of the module's database, which plans without indexes."""
    with template.lent_database() as url:
        yield url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """A pool on the module's database."""
    database = Database(url, pool_size=1)
    yield database
    await database.close()


@pytest.fixture
async def org(database: Database) -> int:
    """An organization with everything that is listed, written in the order of SHUFFLED."""
    async with database.transaction() as connection:
        found = await connection.scalar(text("SELECT organization_id FROM organization WHERE name = 'listed'"))
        if found is not None:
            return int(found)
        org = await organizations.get_or_create(connection, "listed", NOW)
        await _write(connection, org)
    return org


async def _write(connection: Connection, org: int) -> None:
    common = {"organization_id": org, "create_time": NOW}
    fact = {**common, "update_time": NOW, "as_of_time": NOW, "changed_epoch": 0}
    dated = {key: value for key, value in fact.items() if key != "changed_epoch"}
    cycle = {
        "anchor_time": DEFAULT_CYCLE.anchor,
        "cadence": DEFAULT_CYCLE.cadence.value,
        "interval_count": DEFAULT_CYCLE.interval_count,
        "time_zone": DEFAULT_CYCLE.time_zone,
    }
    ids = [f"id-{number}" for number in SHUFFLED]
    rows: list[tuple[Any, list[dict[str, Any]]]] = [
        (customer, [{**fact, **cycle, "customer_id": id_, "display_name": "", "currency": "USD"} for id_ in ids]),
        (subscription, [{**fact, "customer_id": who, "subscription_id": id_} for who, id_ in BOTH]),
        (plan, [{**fact, "plan_id": id_, "display_name": "", "custom_fields": {}} for id_ in ids]),
        (metric, [{**fact, "metric_id": id_, "display_name": "", "aggregation": "SUM"} for id_ in ids]),
        (
            invoice,
            [
                {
                    **dated,
                    "customer_id": who,
                    "invoice_id": id_,
                    "status": "PAID",
                    "currency": "USD",
                    "total": 1,
                    "period_end_time": NOW,
                    "custom_fields": {},
                    "contract_custom_fields": {},
                }
                for who, id_ in BOTH
            ],
        ),
        (
            balance,
            [
                {
                    **dated,
                    "customer_id": who,
                    "balance_id": id_,
                    "kind": "COMMIT",
                    "currency": "USD",
                    "priority": 0,
                    "contract_custom_fields": {},
                    "custom_fields": {},
                    "draw_down": False,
                    "allow_overage": False,
                    "draw_down_metric_ids": [],
                }
                for who, id_ in BOTH
            ],
        ),
        (
            balance_entry,
            [
                {
                    **common,
                    "customer_id": "ann",
                    "balance_id": f"id-{number % 3}",
                    "segment_number": 1,
                    "entry_type": "GRANT",
                    "amount": 1,
                    "remaining": 1,
                }
                for number in SHUFFLED
            ],
        ),
        (
            redelivery_job,
            [
                {
                    **common,
                    "job_id": id_,
                    "endpoint_id": "whe",
                    "kind": "RECOVERY",
                    "state": "DONE",
                    "start_time": NOW,
                    "end_time": NOW,
                    "statuses": [],
                }
                for id_ in ids
            ],
        ),
        (
            operator_event,
            [
                {**common, "event_id": id_, "event_type": "endpoint.failing", "endpoint_id": "whe", "body": "{}"}
                for id_ in ids
            ],
        ),
    ]
    notified = {"customer_id": "ann", "alert_id": "alt", "event_type": "alert.reached", "condition_type": "c"}
    rows += [
        (feed_table, [{"organization_id": org, "last_place": max(NUMBERS), "high_time": NOW}]),
        (
            feed_entry,
            [{**common, **notified, "place": n, "notification_id": f"id-{n}", "high_time": NOW} for n in SHUFFLED],
        ),
        (
            notification,
            [{**common, **notified, "notification_id": f"id-{n}", "sequence": n, "body": ""} for n in SHUFFLED],
        ),
    ]
    for table, values in rows:
        await connection.execute(insert(table), values)
    for _ in NUMBERS:
        await create(connection, org, ManualClock(NOW), NEW_ALERT)


async def _alert_ids(connection: Connection, org: int, after: Any, limit: int = 5) -> Sequence[Any]:
    return (await lists.page(connection, org, AlertFilter(), after=after, limit=limit)).items


async def _notifications(connection: Connection, org: int, after: Any) -> Sequence[Any]:
    found = await notification_history.list_page(connection, org, NotificationFilter(), after=after, limit=5)
    return found.items


async def _customer_alerts(connection: Connection, org: int, after: Any) -> Sequence[Any]:
    [who] = await customers.list_page(connection, org, customers.CustomerFilter(), after=None, limit=1)
    view = CustomerView(connection, org, who, (), NOW)
    return (await view.list_page((), after=after, limit=5)).alerts


LISTS: dict[str, Listing] = {
    "alerts": (_alert_ids, lambda row: (row.create_time, row.alert_id), False),
    "customer alerts": (
        _customer_alerts,
        lambda row: (row.definition.create_time, row.definition.alert_id),
        False,
    ),
    "customers": (
        lambda connection, org, after: customers.list_page(
            connection, org, customers.CustomerFilter(), after=after, limit=5
        ),
        lambda row: row.customer_id,
        False,
    ),
    "subscriptions": (
        lambda connection, org, after: subscriptions.list_page(
            connection, org, subscriptions.SubscriptionFilter(), after=after, limit=5
        ),
        lambda row: (row.customer_id, row.subscription_id),
        False,
    ),
    "plans": (
        lambda connection, org, after: plans.list_page(connection, org, after=after, limit=5),
        lambda row: row.plan_id,
        False,
    ),
    "metrics": (
        lambda connection, org, after: metrics.list_page(connection, org, after=after, limit=5),
        lambda row: row.metric_id,
        False,
    ),
    "balances": (
        lambda connection, org, after: balances.list_page(
            connection, org, balances.BalanceFilter(include_voided=True), after=after, limit=5
        ),
        lambda row: (row.fact.customer_id, row.fact.balance_id),
        False,
    ),
    "entries": (
        lambda connection, org, after: balance_entries.list_page(
            connection, org, "ann", balance_id=None, after=after, limit=5
        ),
        lambda row: (row.change.balance_id, row.entry_number),
        False,
    ),
    "invoices": (
        lambda connection, org, after: invoices.list_page(
            connection, org, invoices.InvoiceFilter(), after=after, limit=5
        ),
        lambda row: (row.fact.customer_id, row.fact.invoice_id),
        False,
    ),
    "notifications": (
        _notifications,
        lambda row: (row.create_time, row.position),
        True,
    ),
    "redelivery jobs": (
        lambda connection, org, after: redelivery_jobs.list_page(
            connection, org, endpoint_id=None, after=after, limit=5
        ),
        lambda row: (row.create_time, row.job_id),
        True,
    ),
    "operator events": (
        lambda connection, org, after: operator_event_log.list_page(
            connection, org, endpoint_id=None, event_types=(), after=after, limit=5
        ),
        lambda row: (row.create_time, row.event_id),
        True,
    ),
}


async def _without_indexes(connection: Connection) -> None:
    for kind in ("indexscan", "indexonlyscan", "bitmapscan"):
        await connection.execute(text(f"SET LOCAL enable_{kind} = off"))


@pytest.mark.parametrize("name", LISTS)
async def test_pages_of_every_list_hold_each_row_once_in_one_order(database: Database, org: int, name: str) -> None:
    page_of, key_of, newest_first = LISTS[name]
    found: list[Any] = []
    async with database.transaction() as connection:
        await _without_indexes(connection)
        while page := [key_of(row) for row in await page_of(connection, org, found[-1] if found else None)]:
            found += page
            assert len(found) <= len(NUMBERS)
    assert len(set(found)) == len(NUMBERS)
    assert found == sorted(found, reverse=newest_first)


async def test_a_stream_with_a_start_time_begins_at_the_first_notification_of_that_time(
    database: Database, org: int
) -> None:
    async with database.transaction() as connection:
        await _without_indexes(connection)
        assert await feed.position_before(connection, org, NOW) == min(NUMBERS) - 1
