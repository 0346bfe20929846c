"""Pages of states in alarm read the latest of each period; the plans of the statements show the rows."""

from datetime import datetime

import pytest
from sqlalchemy import text

from runtime.clock import ManualClock
from store.postgres.database import Database, driver
from store.views import alarm_candidates
from store.views.alarm_candidates import MAX_PERIOD_ENDS, AlarmFilter, Position
from tests.support.postgres.only_one_server import reads_plans
from tests.support.postgres.plans import analyze, recorded
from tests.support.server.sharing import own_database

pytestmark = own_database

STATES = 3_000
PAGE = 50

# States of three current periods, one of which is endless, and of one that has ended. Some have equal times of their
# last change, and some have none.
FILL = text("""
INSERT INTO alert_state (organization_id, customer_id, gauge_id, alert_id, alert_version, reached, sequence,
    change_time, period_end)
SELECT :organization_id, 'c' || number, CAST(md5(CAST(number AS text)) AS uuid), 'alt' || number % 2, 1,
    '{"5": {}}', 1,
    CASE WHEN number % 100 <> 7 THEN CAST(:now AS timestamptz) - number / 3 * interval '1 second' END,
    CASE number % 4 WHEN 0 THEN CAST(:now AS timestamptz) - interval '1 day' WHEN 1 THEN 'infinity'
        ELSE CAST(:now AS timestamptz) + number % 4 * interval '1 day' END
FROM generate_series(1, :number) AS number
""")


@pytest.fixture
async def filled(database: Database, database_url: str, organization_id: int, clock: ManualClock) -> int:
    """The organization, with many states in alarm."""
    parameters = {"organization_id": organization_id, "number": STATES, "now": clock.now()}
    async with database.transaction() as connection:
        await connection.execute(FILL, parameters)
    await analyze(database_url, "alert_state")
    return organization_id


async def pages(
    database: Database, org: int, wanted: AlarmFilter, now: datetime, max_period_ends: int = MAX_PERIOD_ENDS
) -> list[Position]:
    """All candidates, page by page."""
    found, after = list[Position](), None
    async with database.transaction() as connection:
        raw = await driver(connection)
        while page := await alarm_candidates.read(
            raw, org, wanted, now, after, PAGE, max_period_ends=max_period_ends
        ):
            found += page
            after = page[-1]
    return found


@pytest.mark.parametrize("wanted", [AlarmFilter(), AlarmFilter(alert_ids=("alt1",))])
async def test_candidates_of_each_period_are_merged_into_the_order_of_all(
    database: Database, filled: int, clock: ManualClock, wanted: AlarmFilter
) -> None:
    merged = await pages(database, filled, wanted, clock.now())
    sorted_together = await pages(database, filled, wanted, clock.now(), max_period_ends=0)
    assert merged == sorted_together
    expected = STATES * 3 // 4 if not wanted.alert_ids else STATES // 2
    assert len(set(merged)) == len(merged) == expected


@reads_plans
async def test_a_page_of_alarms_reads_a_page_of_each_period(
    database: Database, database_url: str, filled: int, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        raw = await driver(connection)
        first = await alarm_candidates.read(raw, filled, AlarmFilter(), clock.now(), None, PAGE)
        for after in (None, first[-1]):
            with recorded() as statements:
                await alarm_candidates.read(raw, filled, AlarmFilter(), clock.now(), after, PAGE)
            # Of three periods: a page with times, and one of the states without.
            assert sum(cost.rows for cost in statements.costs(database_url)) <= 3 * 2 * PAGE + 10


async def test_a_transaction_that_decodes_for_long_shows_postgresql_that_it_is_alive(
    database: Database, filled: int, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        raw = await driver(connection)
        with recorded() as statements:
            found = await alarm_candidates.read(raw, filled, AlarmFilter(), clock.now(), None, 250, sign_of_life=-1.0)
    assert len(set(found)) == 250
    # After the statements that find the states: two, and one on a cluster.
    signs = [statement for statement, _ in statements.executed if statement == "SELECT 1"]
    assert signs == ["SELECT 1"] * 3
