"""What processes say to each other of the quotas that they use."""

import asyncio

import psycopg
import pytest

from engine.quotas.organization_quotas import IDLE_EXCHANGES, OrganizationQuotas
from engine.quotas.use import OrganizationUse
from runtime.clock import ManualClock
from runtime.quotas import QuotaKind
from store.identity import keys
from store.identity.quotas import QuotaReached, change
from store.postgres.database import Database

EVENTS = QuotaKind.EVENTS_PER_SECOND
MANY = 10**9  # events: more in a second than any quota here, however long the test takes


@pytest.fixture
async def organization_id(database: Database, clock: ManualClock) -> int:
    async with database.transaction() as connection:
        return (await keys.create_key(connection, "acme", clock.now())).organization.organization_id


async def exchange(process: OrganizationQuotas) -> None:
    """Lets a process exchange, a little later: a rate is something in a time."""
    await asyncio.sleep(0.01)
    await process.exchange()


def process(database: Database) -> OrganizationQuotas:
    """A process, which exchanges when the test says so."""
    return OrganizationQuotas(database, {EVENTS: 400, QuotaKind.STREAMS: 3}, interval=1.0)


async def test_processes_that_take_all_share_a_rate_equally(database: Database, organization_id: int) -> None:
    first, second = process(database), process(database)
    one, other = first.use(organization_id), second.use(organization_id)
    one.take(EVENTS, MANY)
    await exchange(first)
    assert one.share(EVENTS) == 400
    await exchange(second)
    assert other.share(EVENTS) == 200
    other.take(EVENTS, MANY)
    await exchange(second)
    await exchange(first)
    assert (one.share(EVENTS), other.share(EVENTS)) == (200, 200)


async def test_processes_share_a_rate_while_they_pay_for_large_messages(
    database: Database, organization_id: int
) -> None:
    first, second = process(database), process(database)
    one, other = first.use(organization_id), second.use(organization_id)
    one.take(EVENTS, MANY)
    other.take(EVENTS, MANY)
    for _ in range(4):  # neither takes anything more
        await exchange(first)
        await exchange(second)
    assert (one.share(EVENTS), other.share(EVENTS)) == pytest.approx((200, 200))


async def test_organization_is_not_forgotten_before_it_has_paid_for_a_large_message(
    database: Database, organization_id: int
) -> None:
    alone = process(database)
    alone.use(organization_id).take(EVENTS, MANY)
    for _ in range(IDLE_EXCHANGES + 2):
        await exchange(alone)
    with pytest.raises(QuotaReached):
        alone.use(organization_id).take(EVENTS, 1)


async def test_process_takes_all_of_a_rate_after_the_others_have_ended(
    database: Database, organization_id: int
) -> None:
    first, second = process(database), process(database)
    first.use(organization_id).take(EVENTS, MANY)
    await exchange(first)
    other = second.use(organization_id)
    await exchange(second)
    assert other.share(EVENTS) == 200
    async with await psycopg.AsyncConnection.connect(database.url) as connection:
        await connection.execute("UPDATE quota_use SET update_time = update_time - interval '1 minute'")
    await exchange(second)
    assert other.share(EVENTS) == 400


async def test_streams_of_all_processes_count(database: Database, organization_id: int) -> None:
    first, second = process(database), process(database)
    for _ in range(2):
        first.use(organization_id).open(QuotaKind.STREAMS)
    await exchange(first)
    other = second.use(organization_id)
    await exchange(second)
    other.open(QuotaKind.STREAMS)
    with pytest.raises(QuotaReached):
        other.open(QuotaKind.STREAMS)
    first.use(organization_id).close(QuotaKind.STREAMS)
    await exchange(first)
    await exchange(second)
    other.open(QuotaKind.STREAMS)


async def test_change_of_a_quota_is_followed_by_every_process(database: Database, organization_id: int) -> None:
    processes = [process(database) for _ in range(3)]
    uses: list[OrganizationUse] = []
    for one in processes:
        await exchange(one)
        uses.append(one.use(organization_id))
    for values, defaults, share in (
        ({EVENTS: 7}, (), 7),
        ({EVENTS: None}, (), None),
        ({}, (EVENTS,), 400),
    ):
        async with database.transaction() as connection:
            await change(connection, organization_id, values, defaults)
        for one in processes:
            await exchange(one)
        assert [use.share(EVENTS) for use in uses] == [share] * 3
    assert all(one.own(organization_id) == {} for one in processes)


async def test_organization_without_quotas_is_not_exchanged(database: Database, organization_id: int) -> None:
    free = OrganizationQuotas(database, {}, interval=1.0)
    free.use(organization_id).open(QuotaKind.STREAMS)
    free.use(organization_id).take(EVENTS, MANY)
    await exchange(free)
    async with database.raw_transaction() as connection:
        cursor = await connection.execute("SELECT count(*) FROM quota_use")
        assert await cursor.fetchone() == (0,)
