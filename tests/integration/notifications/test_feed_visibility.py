"""Notifications whose commit becomes visible step by step: none is missing from the feed, and none overtakes."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from generated.tidemark.v1 import alert_service_pb2, notification_pb2
from server.alerts.subscribers.feeds import Feeds
from store.notifications import placing, unseen
from store.notifications.placed import PendingRow
from store.notifications.unseen import UnseenWait
from store.postgres.database import Database
from tests.support.notifications.split_commits import split_committer
from tests.support.notifications.watching import names, notify, watch
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock
from tests.support.postgres.only_one_server import splits_commits
from tests.support.usage.caller import Caller
from tests.support.waiting import within

ROUNDS = 15  # notifications of each writer


@pytest.fixture
async def pool(caller: Caller) -> AsyncIterator[Database]:
    """Connections of the test's own."""
    opened = Database(caller.database_url, pool_size=3)
    yield opened
    await opened.close()


async def entries(caller: Caller) -> list[tuple[str, int]]:
    """Customers and sequences of the feed, in its order."""
    return [
        (row[0], row[1])
        for row in await caller.rows(
            "SELECT customer_id, sequence FROM feed_entry"
            " JOIN notification USING (organization_id, customer_id, notification_id)"
            " WHERE organization_id = %(organization_id)s ORDER BY place"
        )
    ]


async def listed(caller: Caller) -> list[notification_pb2.Notification]:
    """The first page of ListNotifications, the newest first."""
    request = alert_service_pb2.ListNotificationsRequest()
    return list((await caller.alerts.ListNotifications(request, metadata=caller.metadata)).notifications)


async def unplaced(caller: Caller) -> int:
    [[number]] = await caller.rows("SELECT count(*) FROM feed_pending WHERE organization_id = %(organization_id)s")
    return int(number)


@splits_commits
async def test_notifications_that_show_after_their_pending_rows_are_all_placed_in_order(
    caller: Caller, pool: Database
) -> None:
    """Two writers, and a reader that places all the time, also between the two moments of each commit."""
    feeds, swept, done = Feeds(pool), asyncio.Condition(), asyncio.Event()

    async def places() -> None:
        while not done.is_set():
            await feeds.sweep()
            async with swept:
                swept.notify_all()

    async def a_sweep() -> None:
        """Waits for the end of a sweep that begins after this call."""
        for _ in range(2):
            async with swept:
                await swept.wait()

    async def writes(customer: str) -> None:
        async with split_committer(caller) as writer:
            for number in range(1, ROUNDS + 1):
                await writer.notifies((customer, number))
                await writer.shows_pending()
                await a_sweep()
                await writer.shows_notifications()

    async with within("the end of two writers"), asyncio.TaskGroup() as group:
        reader = group.create_task(places())
        await asyncio.gather(writes("ann"), writes("bob"))
        done.set()
        await reader
    await feeds.sweep()
    assert await unplaced(caller) == 0
    order = defaultdict[str, list[int]](list)
    for customer, sequence in await entries(caller):
        order[customer].append(sequence)
    expected = list(range(1, ROUNDS + 1))
    assert order == {"ann": expected, "bob": expected}


@splits_commits
async def test_nothing_overtakes_a_notification_that_does_not_show_yet(caller: Caller, pool: Database) -> None:
    subscriber = await watch(caller)
    async with split_committer(caller) as writer:
        await notify(caller, ("ann", 1))
        await writer.notifies(("bob", 1))
        await writer.shows_pending()
        await notify(caller, ("ann", 2), ("cid", 1))
        assert names(await subscriber.take(1)) == [("ann", 1)]
        [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
        async with pool.transaction() as connection:
            placed = await placing.assign_positions(connection, organization_id)
        assert placed.number == 0
        assert placed.unseen is not None
        assert placed.unseen.customer_id == "bob"
        assert await unplaced(caller) == 3
        await writer.shows_notifications()
        assert names(await subscriber.take(3)) == [("bob", 1), ("ann", 2), ("cid", 1)]


@splits_commits
async def test_a_list_waits_for_what_was_committed_before_it_and_not_for_what_comes_later(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = list[str]()
    real = UnseenWait.pause
    async with split_committer(caller) as first, split_committer(caller) as second:

        async def pause(self: UnseenWait, row: PendingRow) -> float:
            waited.append(row.customer_id)
            if len(waited) == 2:  # on a busy cluster there is always one that does not show
                await second.notifies(("later", 1))
                await second.shows_pending()
                await first.shows_notifications()
            return await real(self, row)

        monkeypatch.setattr(UnseenWait, "pause", pause)
        await first.notifies(("ann", 1))
        await first.shows_pending()
        await notify(caller, ("bob", 1))
        found = await listed(caller)
        assert names(found) == [("bob", 1), ("ann", 1)]
        assert set(waited) == {"ann"}
        await second.shows_notifications()
        assert names(await listed(caller)) == [("later", 1), ("bob", 1), ("ann", 1)]


async def test_the_feed_goes_on_without_a_notification_that_never_comes(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unseen, "PATIENCE", 0.0)
    await notify(caller, ("ann", 1), ("bob", 1))
    await caller.rows(
        "DELETE FROM notification WHERE organization_id = %(organization_id)s AND customer_id = 'ann' RETURNING 1"
    )
    assert names(await listed(caller)) == [("bob", 1)]
    assert await unplaced(caller) == 0
    [logged] = [record for record in caplog.records if record.name == "store.notifications.unseen"]
    assert logged.__dict__["action"] == "feed.notification_missing"
    assert logged.__dict__["notification_id"].startswith("ntf_")


@splits_commits
async def test_a_notification_that_is_merely_late_is_not_given_up_however_long_it_takes(
    caller: Caller, pool: Database
) -> None:
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    async with split_committer(caller) as writer:
        await writer.notifies(("ann", 1))
        await writer.shows_pending()
        async with pool.transaction() as connection:
            found = (await placing.assign_positions(connection, organization_id)).unseen
        assert found is not None
        trial = asyncio.create_task(unseen.delete_if_missing(pool, organization_id, found))
        await until_it_waits_for_a_lock(pool, trial)
        await writer.shows_notifications()
        assert not await trial
    assert names(await listed(caller)) == [("ann", 1)]
