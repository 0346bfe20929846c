"""How feeds are read: their tasks end with the last subscriber, reads are bounded, and none is missed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.upkeep import REPLAY_LIFETIME, Upkeep
from runtime.clock import ManualClock
from server.alerts.subscribers import feeds
from server.alerts.subscribers.feed_limits import FeedLimits
from server.alerts.subscribers.feeds import Feeds
from server.alerts.subscribers.tail import Tail
from server.limits import ServerLimits
from store.identity import idempotent_answers
from store.notifications import feed, placing
from store.notifications import history as notification_history
from store.notifications.feed import NotificationFilter
from store.notifications.placed import PendingRow, Placed
from store.postgres.database import Database, DatabaseUnavailable
from tests.support.notifications.watching import Subscriber, names, notify, pool, watch
from tests.support.server.limits import with_server_limits
from tests.support.usage.caller import Caller, until
from tests.support.usage.organizations import organization

WITHOUT_POLLS = FeedLimits(poll_interval=3_600.0)  # a notification arrives only by the hint of its commit


async def organization_id_of(caller: Caller) -> int:
    """The caller's organization."""
    [[found]] = await caller.rows("SELECT %(organization_id)s::bigint")
    return int(found)


def tasks(*prefixes: str) -> list[str]:
    """The names of running tasks that begin so."""
    return sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(prefixes))


def none_left(*prefixes: str) -> Callable[[], Awaitable[bool]]:
    """Whether no task is left whose name begins with a prefix."""

    async def found() -> bool:
        return not tasks(*prefixes)

    return found


async def test_a_feeds_task_ends_with_its_last_subscriber_and_begins_with_the_next(caller: Caller) -> None:
    for number in range(1, 4):
        subscriber = await watch(caller)
        assert tasks("feed ") == [f"feed {await organization_id_of(caller)}"]
        await notify(caller, ("ann", number))
        assert names(await subscriber.take(1)) == [("ann", number)]
        subscriber.call.cancel()
        await until(none_left("feed ", "watch-"))


async def test_a_refused_stream_leaves_no_task(caller: Caller) -> None:
    for _ in range(3):
        await Subscriber(caller, resume_token="W10").refused()
    await until(none_left("feed ", "watch-"))


async def test_feeds_with_later_or_pending_entries_are_found(caller: Caller, clock: ManualClock) -> None:
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    ours, theirs = await organization_id_of(caller), await organization_id_of(stranger)
    async with pool(caller) as database, database.transaction() as connection:
        assert await feed.with_later_entries(connection, {ours: 0, theirs: 0}) == set()
        await notify(caller, ("ann", 1), ("ann", 2))
        assert await feed.with_later_entries(connection, {ours: 0, theirs: 0}) == {ours}
        assert await placing.assign_positions(connection, ours) == Placed(2)
        assert await placing.assign_positions(connection, ours) == Placed(0)  # deletes what a cluster has left
        for seen, expected in ((0, {ours}), (1, {ours}), (2, set[int]())):
            assert await feed.with_later_entries(connection, {ours: seen, theirs: 0}) == expected
        await notify(stranger, ("ann", 1))
        assert await feed.with_later_entries(connection, {ours: 2, theirs: 0}) == {theirs}


async def test_a_subscriber_behind_the_tail_reads_every_entry_in_bounded_steps(caller: Caller) -> None:
    written = [("ann" if number % 3 else "bob", number) for number in range(1, 21)]
    await notify(caller, *written)
    org = await organization_id_of(caller)
    async with pool(caller) as database:
        async with database.transaction() as connection:
            await notification_history.assign_all_positions(connection, org)
        feeds = Feeds(database, limits=FeedLimits(catch_up_entries=2, catch_up_span=5))
        for wanted in (
            NotificationFilter(),
            NotificationFilter(customer_ids=("bob",)),
            NotificationFilter(customer_ids=("nobody",)),
        ):
            found: list[tuple[str, int]] = []
            place = 0
            while place < len(written):
                entries, reached = await feeds.catch_up(org, place, len(written), wanted)
                assert len(entries) <= 2
                assert place < reached <= place + 5
                found += [(one.customer_id, one.sequence) for one in entries]
                place = reached
            assert place == len(written)
            assert found == [one for one in written if not wanted.customer_ids or one[0] in wanted.customer_ids]


async def test_a_read_of_the_feed_excludes_its_first_position_and_includes_its_last(caller: Caller) -> None:
    await notify(caller, *(("ann", number) for number in range(1, 6)))
    org = await organization_id_of(caller)
    async with pool(caller) as database, database.transaction() as connection:
        await notification_history.assign_all_positions(connection, org)
        for after, until_place, expected in (
            (0, 5, [1, 2, 3, 4, 5]),
            (1, 3, [2, 3]),
            (2, 3, [3]),
            (3, 3, list[int]()),
        ):
            found = await feed.read(connection, org, after=after, until=until_place, limit=9)
            assert [one.position for one in found] == expected


@with_server_limits(ServerLimits(feeds=replace(WITHOUT_POLLS, read_entries=3)))
async def test_a_tail_reads_more_notifications_than_one_transaction_takes(caller: Caller) -> None:
    subscriber = await watch(caller)
    await notify(caller, *(("ann", number) for number in range(1, 12)))
    assert names(await subscriber.take(11)) == [("ann", number) for number in range(1, 12)]


@with_server_limits(ServerLimits(feeds=replace(WITHOUT_POLLS, retry_pause=0.01)))
async def test_a_tail_is_read_again_after_a_failed_read(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    real = placing.assign_positions
    failures: list[Exception] = []

    async def fails_first(connection: AsyncConnection, organization_id: int, limit: int) -> Placed:
        if failures:
            raise failures.pop()
        return await real(connection, organization_id, limit)

    subscriber = await watch(caller)
    monkeypatch.setattr(feeds, "assign_positions", fails_first)
    for number, failure in enumerate((DatabaseUnavailable("away"), ZeroDivisionError()), start=1):
        failures.append(failure)
        await notify(caller, ("ann", number))
        assert names(await subscriber.take(1)) == [("ann", number)]
        assert not failures


@with_server_limits(ServerLimits(feeds=WITHOUT_POLLS))
async def test_a_notification_that_commits_during_a_read_of_the_tail_is_read_after_it(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber = await watch(caller)
    real = Feeds._read_on
    reading, hinted = asyncio.Event(), asyncio.Event()

    async def slowly(self: Feeds, organization_id: int, tail: Tail) -> tuple[bool, PendingRow | None]:
        more = await real(self, organization_id, tail)
        if reading.is_set():
            return more
        reading.set()
        await hinted.wait()
        return more

    hints = Feeds._hint

    def hint(self: Feeds, organization_ids: set[int] | None) -> None:
        hints(self, organization_ids)
        if reading.is_set():
            hinted.set()

    monkeypatch.setattr(Feeds, "_read_on", slowly)
    monkeypatch.setattr(Feeds, "_hint", hint)
    await notify(caller, ("ann", 1))
    async with asyncio.timeout(30):
        await reading.wait()
    await notify(caller, ("ann", 2))
    assert names(await subscriber.take(2)) == [("ann", 1), ("ann", 2)]


async def test_a_notification_that_is_placed_while_a_stream_begins_is_not_missed(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, start = await organization_id_of(caller), clock.now()
    await notify(caller, ("ann", 1))
    extent = feed.extent
    async with pool(caller) as database, pool(caller) as others:

        async def placed_before(connection: AsyncConnection, organization_id: int) -> feed.Extent:
            async with others.transaction() as other:
                await placing.assign_positions(other, ours)
            return await extent(connection, organization_id)

        monkeypatch.setattr(feed, "extent", placed_before)
        async with database.transaction() as connection:
            assert await feed.position_before(connection, ours, start) == 0


async def test_upkeep_deletes_all_notifications_and_answers_that_are_due(caller: Caller, clock: ManualClock) -> None:
    org = await organization_id_of(caller)
    kept = timedelta(days=2)
    async with pool(caller) as database:
        for number in range(1, 8):
            await notify(caller, ("ann", number))
        await _answer(database, org, "old", clock)
        clock.advance(kept)
        await notify(caller, ("bob", 1))
        await Feeds(database).sweep()

        async def left() -> list[tuple[str, int]]:
            rows = await caller.rows(
                "SELECT customer_id, sequence FROM notification WHERE organization_id = %(organization_id)s"
                " ORDER BY customer_id, sequence"
            )
            return [(row[0], row[1]) for row in rows]

        async def upkeep() -> None:
            await Upkeep(database, clock, timedelta(days=400), kept, notifications_deleted=2).run_once()

        # A notification exactly as old as the retention is kept.
        await upkeep()
        assert len(await left()) == 8
        clock.advance(timedelta(microseconds=1))
        await upkeep()
        assert await left() == [("bob", 1)]
        remembered = "SELECT request_id FROM request WHERE organization_id = %(organization_id)s ORDER BY 1"
        clock.advance(REPLAY_LIFETIME - kept - timedelta(microseconds=1))
        await _answer(database, org, "young", clock)
        await upkeep()
        assert await caller.rows(remembered) == [("old",), ("young",)]
        clock.advance(timedelta(microseconds=1))
        await upkeep()
        assert await caller.rows(remembered) == [("young",)]


async def _answer(database: Database, organization_id: int, request_id: str, clock: ManualClock) -> None:
    async with database.transaction() as connection:
        await idempotent_answers.store_answer(
            connection, organization_id, "M", request_id, b"sent", b"answered", clock.now()
        )
