"""The history reads about a page, however many notifications there are: the plans of its statements show the rows."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.clock import ManualClock
from store.identity import organizations
from store.notifications import feed, history, placing
from store.notifications.feed import FeedEntry, NotificationFilter
from store.notifications.placed import Placed
from store.postgres.database import Database
from tests.support.postgres.plans import recorded
from tests.support.server.sharing import own_database

pytestmark = own_database

NOTIFICATIONS = 3_000
PAGE = 50
EXAMINED = 300

FILL = (
    """
INSERT INTO notification (organization_id, customer_id, notification_id, alert_id, sequence, event_type,
    condition_type, create_time, body)
SELECT :organization_id, CASE WHEN number % 1000 = 1 THEN 'few' ELSE 'c' || number % 300 END, 'ntf_' || number,
    CASE WHEN number <= 500 THEN 'old' ELSE 'alt' || number % 300 END, 0,
    CASE WHEN number % 1000 = 2 THEN 'alert.disabled' ELSE 'alert.reached' END, 'spend_threshold_reached',
    CAST(:now AS timestamptz) + number / 3 * interval '1 second', '{}'
FROM generate_series(1, :number) AS number
""",
    "INSERT INTO feed (organization_id, last_place, high_time) VALUES (:organization_id, :number, :now)",
    """
INSERT INTO feed_entry (organization_id, place, notification_id, customer_id, alert_id, event_type, condition_type,
    create_time, high_time)
SELECT organization_id, CAST(substr(notification_id, 5) AS bigint), notification_id, customer_id, alert_id,
    event_type, condition_type, create_time, create_time
FROM notification
""",
    "ANALYZE notification, feed_entry",
)

INDEXED = {
    "everything": NotificationFilter(),
    "few of one customer": NotificationFilter(customer_ids=("few",)),
    "of 100 customers, one twice": NotificationFilter(customer_ids=(*(f"c{number}" for number in range(99)), "c7")),
    "of one alert": NotificationFilter(alert_ids=("old",)),
    "of two alerts": NotificationFilter(alert_ids=("old", "alt7")),
}
EXAMINING = {
    "of a rare type": NotificationFilter(event_types=("alert.disabled",)),
    "of no condition": NotificationFilter(condition_types=("none",)),
    "of a rare type of an alert": NotificationFilter(alert_ids=("old",), event_types=("alert.disabled",)),
}


@pytest.fixture
async def org(database: Database, clock: ManualClock) -> int:
    """An organization with many notifications that have positions."""
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", clock.now())
        for statement in FILL:
            parameters = {"organization_id": organization_id, "number": NOTIFICATIONS, "now": clock.now()}
            await connection.execute(text(statement), parameters if ":" in statement else {})
    return organization_id


async def pages(database: Database, org: int, wanted: NotificationFilter) -> list[FeedEntry]:
    """All notifications of a list, page by page."""
    found, after = list[FeedEntry](), None
    async with database.transaction() as connection:
        while True:
            page = await history.list_page(connection, org, wanted, after=after, limit=PAGE, most_examined=EXAMINED)
            found += page.items
            if len(page.items) == PAGE:
                after = page.items[-1].create_time, page.items[-1].position
            elif page.end is not None:
                after = page.end
            else:
                return found


async def test_a_page_of_the_history_reads_a_page_or_a_bounded_number_of_entries(
    database: Database, database_url: str, org: int
) -> None:
    async with database.transaction() as connection:
        for name, wanted in {**INDEXED, **EXAMINING}.items():
            with recorded() as statements:
                await history.list_page(connection, org, wanted, limit=PAGE, most_examined=EXAMINED)
            rows = sum(cost.rows for cost in statements.costs(database_url))
            # An entry and a notification of each, and the first entry of each customer or alert.
            most = 2 * PAGE + 100 if name in INDEXED else EXAMINED + PAGE
            assert rows <= most, (name, rows)


async def test_pages_of_the_history_have_each_notification_once_in_order(database: Database, org: int) -> None:
    everything = await pages(database, org, NotificationFilter())
    assert [one.position for one in everything] == list(range(NOTIFICATIONS, 0, -1))
    for name, wanted in {**INDEXED, **EXAMINING}.items():
        expected = [one for one in everything if wanted.matches(one)]
        assert await pages(database, org, wanted) == expected, name


async def test_positions_of_many_notifications_are_assigned_in_bounded_transactions(
    database: Database, org: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assigned = list[int]()

    async def assign(connection: AsyncConnection, organization_id: int, limit: int) -> Placed:
        placed = await placing.assign_positions(connection, organization_id, limit)
        assigned.append(placed.number)
        return placed

    monkeypatch.setattr(history, "assign_positions", assign)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO notification (organization_id, customer_id, notification_id, alert_id, sequence,"
                " event_type, condition_type, create_time, body)"
                " SELECT organization_id, customer_id, 'new_' || notification_id, alert_id, sequence, event_type,"
                " condition_type, create_time, body FROM notification WHERE notification_id < 'ntf_1002'"
            )
        )
        added = await connection.execute(
            text(
                "INSERT INTO feed_pending (organization_id, customer_id, notification_id)"
                " SELECT organization_id, customer_id, notification_id FROM notification"
                " WHERE notification_id LIKE 'new%'"
            )
        )
    async with history.reading(database, org, assign_limit=2) as connection:
        extent = await feed.extent(connection, org)
    assert extent.last_position == NOTIFICATIONS + added.rowcount
    placed = [number for number in assigned if number]  # the others deleted, on a cluster, what has positions
    assert placed == [2] * (added.rowcount // 2) + [added.rowcount % 2]
