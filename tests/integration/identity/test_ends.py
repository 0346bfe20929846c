"""The numbers of keys and quotas that end soon, as a scrape shows them."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from runtime.clock import ManualClock
from runtime.monitoring.exposition import exposition
from runtime.monitoring.instruments import Instruments
from runtime.quotas import QuotaKind, Quotas
from store.alerts import counts
from store.identity import keys, quotas
from store.identity.keys import KeySettings
from store.identity.quotas import Use
from store.monitoring.ends_watch import EndsWatch
from store.postgres.database import Database
from store.tables.accounts import api_key
from tests.support.notifier.house import House
from tests.support.server.sharing import own_database

DAY = timedelta(days=1)


async def shown(database: Database, clock: ManualClock, defaults: Quotas | None = None) -> dict[str, float]:
    """The series of a scrape after a read."""
    instruments = Instruments()
    await EndsWatch(database, clock, instruments, defaults or {}).read()
    lines = (await exposition(instruments.registry, "")).body.decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def of(kind: QuotaKind) -> str:
    return f'tidemark_quotas_nearly_used{{quota="{kind.value}"}}'


@pytest.mark.parametrize(
    ("left", "age", "used", "revoked", "expected"),
    [
        (13 * DAY, 200 * DAY, timedelta(hours=2), False, 1),
        (13 * DAY, 20 * DAY, timedelta(hours=2), False, 0),  # less than four fifths of its lifetime are over
        (DAY / 2, 5 * DAY, timedelta(hours=2), False, 1),
        (15 * DAY, 200 * DAY, timedelta(hours=2), False, 0),
        (13 * DAY, 200 * DAY, 2 * DAY, False, 0),  # its callers use another one
        (13 * DAY, 200 * DAY, None, False, 0),
        (13 * DAY, 200 * DAY, timedelta(hours=2), True, 0),
        (-DAY, 200 * DAY, timedelta(hours=2), False, 0),  # it has expired
        (None, 200 * DAY, timedelta(hours=2), False, 0),
    ],
)
async def test_keys_in_use_that_expire_soon_are_counted(
    database: Database,
    clock: ManualClock,
    left: timedelta | None,
    age: timedelta,
    used: timedelta | None,
    revoked: bool,
    expected: int,
) -> None:
    now = clock.now()
    async with database.transaction() as connection:
        settings = KeySettings(expire_time=None if left is None else now + left)
        made = await keys.create_key(connection, "acme", now - age, settings)
        await connection.execute(update(api_key).values(last_use_time=None if used is None else now - used))
        if revoked:
            await keys.revoke_key(connection, made.key_id, now)
    assert (await shown(database, clock))["tidemark_keys_expiring"] == expected


async def test_organizations_that_use_most_of_a_quota_are_counted_by_its_kind(
    database: Database, clock: ManualClock
) -> None:
    houses = [await House.build(database, clock, name) for name in ("a", "b", "c")]
    ids = [house.organization_id for house in houses]
    for number in range(4):
        await houses[0].endpoint(f"https://hooks.example.com/{number}")
    async with database.transaction() as connection:
        for organization_id in ids:
            await counts.current(connection, organization_id)
            uses = {organization_id: Use(streams=4, watchers=0, events_per_second=79.0, bytes_per_second=80.0)}
            await quotas.exchange(connection, "p1", uses)
            await quotas.exchange(connection, "p2", {organization_id: replace(uses[organization_id], streams=4)})
        own: Quotas = {QuotaKind.STREAMS: 100, QuotaKind.ENDPOINTS: None}
        await quotas.change(connection, ids[1], own)
        await quotas.change(connection, ids[2], {QuotaKind.STREAMS: None, QuotaKind.WATCHERS: 0})
    defaults: Quotas = {
        QuotaKind.STREAMS: 10,
        QuotaKind.ENDPOINTS: 5,
        QuotaKind.ALERTS: 10,
        QuotaKind.BYTES_PER_SECOND: 200,
        QuotaKind.EVENTS_PER_SECOND: 200,
    }
    found = await shown(database, clock, defaults)
    assert {kind: found[of(kind)] for kind in QuotaKind} == {
        QuotaKind.ALERTS: 0,
        QuotaKind.ENDPOINTS: 1,  # only the first one has endpoints
        QuotaKind.STREAMS: 1,  # of the others, one has a larger quota and one has none
        QuotaKind.WATCHERS: 0,  # none is used of a quota of 0
        QuotaKind.EVENTS_PER_SECOND: 0,  # 158 of 200
        QuotaKind.BYTES_PER_SECOND: 3,
    }
    assert len(found) == 1 + len(QuotaKind)  # however many organizations there are


@own_database
async def test_nothing_is_shown_after_a_read_that_failed(database_url: str, clock: ManualClock) -> None:
    database = Database(database_url)
    instruments = Instruments()
    watch = EndsWatch(database, clock, instruments, {})
    await watch.read()
    assert b"tidemark_keys_expiring 0" in (await exposition(instruments.registry, "")).body
    async with database.transaction() as connection:
        await connection.exec_driver_sql("ALTER TABLE api_key RENAME TO gone")
    with pytest.raises(Exception, match="api_key"):
        await watch.read()
    assert b"tidemark_keys_expiring" not in (await exposition(instruments.registry, "")).body
    await database.close()
