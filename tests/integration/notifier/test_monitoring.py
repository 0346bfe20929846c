"""The monitoring port of a notifier: attempts, what waits in the database, and health."""

import asyncio
from datetime import timedelta

from sqlalchemy import text

from runtime.clock import ManualClock
from runtime.monitoring.exposition import exposition
from runtime.monitoring.instruments import Instruments
from store.monitoring.watch import BacklogWatch
from store.postgres.database import Database
from tests.support.monitoring.scraping import Scraped, monitoring_socket, read, scrape, status
from tests.support.notifier.endpoint_rows import change
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver
from tests.support.notifier.receiver import status as answer

BACKLOG = "tidemark_outbox_notifications"
ATTEMPTS = "tidemark_notifier_attempts_total"


async def until_value(port: int, name: str, value: float, **labels: str) -> Scraped:
    """Waits until a scrape has a series with that value."""
    async with asyncio.timeout(30):
        while True:
            found = await scrape(port)
            if found.has(name, **labels) and found.value(name, **labels) == value:
                return found
            await asyncio.sleep(0.02)


async def test_attempts_are_counted_by_outcome(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    receiver.answer(answer(500), answer(200))
    with monitoring_socket() as (listening, port):
        async with running_notifier(house, configuration(), monitoring_socket=listening):
            await house.notify(2)
            await until_value(port, ATTEMPTS, 1, outcome="server_error")
            found = await until_value(port, ATTEMPTS, 1, outcome="delivered")
            assert found.value("tidemark_notifier_attempt_duration_seconds_count") == 2
            assert found.value("tidemark_notifier_fan_out_deliveries_total") == 2
            assert found.value("tidemark_notifier_concurrency") == configuration().notifier_concurrency
            assert found.value("tidemark_database_pool_size") == 4
            await until_value(port, "tidemark_notifier_in_flight", 0)
            await until_value(port, "tidemark_ready", 1)
            assert await status(port, "/healthz") == 200


async def test_the_setting_of_notifiers_is_used_instead_of_the_common_one(house: House) -> None:
    with monitoring_socket() as (taken, port):
        # The common address is taken: a notifier that used it could not start.
        settings = configuration(METRICS_LISTEN=f"127.0.0.1:{port}", NOTIFIER_LISTEN="127.0.0.1:0")
        async with running_notifier(house, settings) as polls:
            await polls.one_more()
        assert taken.fileno() >= 0


async def read_backlog(database: Database, clock: ManualClock) -> Scraped:
    """What a process shows after it has read the backlog."""
    instruments = Instruments()
    await BacklogWatch(database, clock, instruments).read()
    return read((await exposition(instruments.registry, "")).body.decode())


async def test_the_outbox_is_shown_with_the_age_of_its_oldest(database: Database, clock: ManualClock) -> None:
    house = await House.build(database, clock)
    found = await read_backlog(database, clock)
    assert (found.value(BACKLOG), found.value("tidemark_outbox_oldest_age_seconds")) == (0, 0)
    await house.notify(2)
    clock.advance(timedelta(seconds=90))
    await house.notify(1)
    found = await read_backlog(database, clock)
    assert (found.value(BACKLOG), found.value("tidemark_outbox_oldest_age_seconds")) == (3, 90)


async def test_deliveries_that_are_due_are_shown_by_whether_their_endpoint_is_open(
    house: House, receiver: Receiver, database: Database, clock: ManualClock
) -> None:
    created = await house.endpoint(receiver.url)
    receiver.answer(answer(500))
    async with running_notifier(house):
        await house.notify()
        await house.attempted(1)
    await house.make_due()
    found = await read_backlog(database, clock)
    assert found.value("tidemark_deliveries_due_endpoints") == 1
    waits = found.value("tidemark_deliveries_oldest_waiting_age_seconds")
    assert waits > 0
    assert found.value("tidemark_deliveries_oldest_due_age_seconds") == waits

    await change(house, created.endpoint.endpoint_id, not_before="now() + interval '1 hour'")
    found = await read_backlog(database, clock)
    assert found.value("tidemark_deliveries_oldest_waiting_age_seconds") > 0
    assert found.value("tidemark_deliveries_oldest_due_age_seconds") == 0


async def test_timers_that_are_due_are_shown(database: Database, clock: ManualClock, house: House) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO wallet (organization_id, customer_id, due_time) VALUES"
                " (:organization_id, 'acme', :due_time)"
            ),
            {"organization_id": house.organization_id, "due_time": clock.now() + timedelta(seconds=10)},
        )
    assert (await read_backlog(database, clock)).value("tidemark_timers_oldest_due_age_seconds") == 0
    clock.advance(timedelta(seconds=40))
    assert (await read_backlog(database, clock)).value("tidemark_timers_oldest_due_age_seconds") == 30
