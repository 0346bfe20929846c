"""Finished deliveries and attempts lie in partitions of their days, which are made ahead and dropped when old."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from store.deliveries import daily_partitions
from store.notifications.operator_events import add
from store.postgres.database import Database
from tests.support.notifier.delivery_queue import claim, delivered, failed, fan_out, record
from tests.support.notifier.house import House
from tests.support.server.sharing import own_database
from webhooks.deliveries import DeliveryStatus
from webhooks.operator_events import Notice, OperatorEvent, OperatorEventType

pytestmark = own_database

KEEP = timedelta(days=30)


async def rows_in(house: House, table: str) -> int:
    async with house.database.transaction() as connection:
        number: int = await connection.scalar(text(f"SELECT count(*) FROM {table}"))
        return number


async def make_ahead(database: Database) -> None:
    async with database.transaction() as connection:
        await daily_partitions.make_ahead(connection)


async def test_days_are_made_once_when_several_notifiers_make_them(house: House) -> None:
    await asyncio.gather(*(make_ahead(house.database) for _ in range(3)))
    async with house.database.transaction() as connection:
        for parent in ("delivery", "attempt"):
            days = await daily_partitions.existing_days(connection, parent)
            assert len(days) == daily_partitions.DAYS_AHEAD + 1


async def test_a_finished_delivery_leaves_the_live_partition(house: House) -> None:
    await make_ahead(house.database)
    await house.endpoint("https://example.com/hook")
    await house.notify(3)
    await fan_out(house)
    done, tried, _ = await claim(house)
    await record(house, [delivered(done), failed(tried)])
    assert await rows_in(house, "delivery_live") == 2
    assert await rows_in(house, "delivery_default") == 0
    finished = [item for item in await house.deliveries() if item.status is DeliveryStatus.DELIVERED]
    assert [item.delivery_id for item in finished] == [done.delivery_id]


async def test_rows_from_before_their_day_was_made_move_into_it(house: House) -> None:
    await house.endpoint("https://example.com/hook")
    await house.notify()
    await fan_out(house)
    [done] = await claim(house)
    await record(house, [delivered(done)])
    assert await rows_in(house, "delivery_default") == 1
    await make_ahead(house.database)
    assert await rows_in(house, "delivery_default") == 0
    [kept] = await house.deliveries()
    assert kept.status is DeliveryStatus.DELIVERED


async def test_old_days_are_dropped_and_younger_ones_are_kept(house: House) -> None:
    await make_ahead(house.database)
    async with house.database.transaction() as connection:
        for table in ("delivery", "attempt"):
            day = (datetime.now(UTC) - timedelta(days=40)).date()
            name = f"{table}_{day:%Y%m%d}"
            await connection.execute(
                text(
                    f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{day}') TO ('{day + timedelta(1)}')"
                )
            )
    async with house.database.transaction() as connection:
        dropped = await daily_partitions.drop_old(connection, KEEP)
    assert len(dropped) == 2
    async with house.database.transaction() as connection:
        assert await daily_partitions.drop_old(connection, KEEP) == []
        assert len(await daily_partitions.existing_days(connection, "delivery")) == daily_partitions.DAYS_AHEAD + 1


async def event_ids(house: House) -> set[str]:
    async with house.database.transaction() as connection:
        return set(await connection.scalars(text("SELECT event_id FROM operator_event")))


async def drop_old(house: House) -> None:
    async with house.database.transaction() as connection:
        await daily_partitions.drop_old(connection, KEEP)


async def test_an_operator_event_older_than_retention_stays_while_a_delivery_has_to_carry_it(house: House) -> None:
    await house.endpoint("https://example.com/hook", ("endpoint.disabled",))

    async def happened(event_type: OperatorEventType, age: timedelta) -> str:
        async with house.database.transaction() as connection:
            event = OperatorEvent(house.organization_id, "whe_other", Notice(event_type, {}))
            [event_id] = await add(connection, [event], datetime.now(UTC) - age)
        return event_id

    awaited = await happened(OperatorEventType.ENDPOINT_DISABLED, timedelta(days=40))
    await happened(OperatorEventType.ENDPOINT_FAILING, timedelta(days=40))  # no endpoint wants this one
    young = await happened(OperatorEventType.ENDPOINT_FAILING, timedelta(days=20))
    await fan_out(house)
    await drop_old(house)
    assert await event_ids(house) == {awaited, young}

    # Waiting for its next attempt, or held by a notifier: it is the same.
    [claimed] = await claim(house)
    await drop_old(house)
    assert claimed.body is not None
    assert json.loads(claimed.body)["id"] == awaited
    await record(house, [failed(claimed)])
    await drop_old(house)
    [again] = await claim(house)
    assert again.body == claimed.body

    await record(house, [delivered(again)])
    await drop_old(house)
    assert await event_ids(house) == {young}
