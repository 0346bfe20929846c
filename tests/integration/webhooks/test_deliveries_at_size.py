"""A page of deliveries reads about a page, however many there are: the plans of its statements show the rows."""

import pytest
from sqlalchemy import text

from runtime.clock import ManualClock
from store.deliveries import deliveries
from store.deliveries.deliveries import Delivery, DeliveryFilter
from store.identity import organizations
from store.postgres.database import Database
from tests.support.postgres.plans import recorded
from tests.support.server.sharing import own_database
from webhooks.deliveries import DeliveryStatus

pytestmark = own_database

DELIVERIES = 3_000
PAGE = 50
EXAMINED = 300

FILL = """
INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type, status,
    create_time, next_attempt_time, finish_time, finish_day)
SELECT :organization_id, 'whd_' || number, CASE WHEN number <= 100 THEN 'old' ELSE 'whe_' || number % 5 END,
    'ntf_' || number / 5, CASE WHEN number % 1000 = 1 THEN 'few' ELSE 'c' || number % 300 END,
    CASE WHEN number % 1000 = 2 THEN 'alert.disabled' ELSE 'alert.reached' END, status, create_time,
    CASE WHEN status = 'PENDING' THEN create_time END, CASE WHEN status <> 'PENDING' THEN create_time END,
    CASE WHEN status = 'PENDING' THEN 'infinity'::date ELSE create_time::date END
FROM (
    SELECT number, CAST(:now AS timestamptz) + number / 3 * interval '1 second' AS create_time,
        CASE WHEN number % 100 = 3 THEN 'PENDING' WHEN number % 1000 = 4 THEN 'FAILED' ELSE 'DELIVERED' END AS status
    FROM generate_series(1, :number) AS number
) AS numbered
"""

INDEXED = {
    "everything": DeliveryFilter(),
    "of one endpoint": DeliveryFilter(endpoint_id="old"),
    "of one notification": DeliveryFilter(notification_id="ntf_77"),
    "waiting": DeliveryFilter(statuses=(DeliveryStatus.PENDING,)),
}
EXAMINING = {
    "failed": DeliveryFilter(statuses=(DeliveryStatus.FAILED,)),
    "failed or waiting": DeliveryFilter(statuses=(DeliveryStatus.FAILED, DeliveryStatus.PENDING)),
    "few of one customer": DeliveryFilter(customer_id="few"),
    "of a rare type": DeliveryFilter(event_types=("alert.disabled",)),
}


@pytest.fixture
async def org(database: Database, clock: ManualClock) -> int:
    """An organization with many deliveries."""
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", clock.now())
        parameters = {"organization_id": organization_id, "number": DELIVERIES, "now": clock.now()}
        await connection.execute(text(FILL), parameters)
    # A cluster does not analyze tables of the coordinator in the transaction that has filled them.
    async with database.transaction() as connection:
        await connection.execute(text("ANALYZE delivery"))
    return organization_id


async def pages(database: Database, org: int, wanted: DeliveryFilter, *, newest_first: bool) -> list[Delivery]:
    """All deliveries of a list, page by page."""
    found, after = list[Delivery](), None
    async with database.transaction() as connection:
        while True:
            page = await deliveries.list_page(
                connection,
                org,
                wanted,
                after=after,
                limit=PAGE,
                newest_first=newest_first,
                most_examined=EXAMINED,
            )
            found += page.items
            if len(page.items) == PAGE:
                after = page.items[-1].create_time, page.items[-1].delivery_id
            elif page.end is not None:
                after = page.end
            else:
                return found


async def test_a_page_of_deliveries_reads_a_page_or_a_bounded_number_of_rows(
    database: Database, database_url: str, org: int
) -> None:
    async with database.transaction() as connection:
        for name, wanted in {**INDEXED, **EXAMINING}.items():
            with recorded() as statements:
                await deliveries.list_page(connection, org, wanted, limit=PAGE, most_examined=EXAMINED)
            rows = sum(cost.rows for cost in statements.costs(database_url))
            # Beside the page, the first row of each partition.
            most = (PAGE if name in INDEXED else EXAMINED) + 10
            assert rows <= most, (name, rows)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_of_deliveries_have_each_delivery_once_in_order(
    database: Database, org: int, newest_first: bool
) -> None:
    everything = await pages(database, org, DeliveryFilter(), newest_first=newest_first)
    assert len({one.delivery_id for one in everything}) == len(everything) == DELIVERIES
    ages = [(one.create_time, one.delivery_id) for one in everything]
    assert ages == sorted(ages, reverse=newest_first)
    for name, wanted in {**INDEXED, **EXAMINING}.items():
        found = await pages(database, org, wanted, newest_first=newest_first)
        assert found == [one for one in everything if matches(wanted, one)], name


def matches(wanted: DeliveryFilter, one: Delivery) -> bool:
    """Whether a delivery passes the filters that these tests use."""
    return (
        wanted.endpoint_id in (None, one.endpoint_id)
        and wanted.notification_id in (None, one.notification_id)
        and wanted.customer_id in (None, one.customer_id)
        and (not wanted.statuses or one.status in wanted.statuses)
        and (not wanted.event_types or one.event_type in wanted.event_types)
    )
