"""The watch stream misses nothing and mixes up nothing, in whatever order transactions commit."""

import asyncio
import json
import random
from collections import defaultdict

import pytest

from generated.tidemark.v1 import alert_service_pb2, notification_pb2, threshold_pb2
from server.alerts.subscribers import feeds, tail
from store.notifications import feed
from store.postgres.database import Database
from tests.support.notifications.watching import Watcher, committer, names, watch
from tests.support.usage.caller import BOTH, Caller, beside, usage_alert, waiting_for_locks
from tests.support.waiting import within


async def test_a_notification_that_commits_late_is_received_late_and_not_missed(caller: Caller) -> None:
    watcher = await watch(caller)
    async with committer(caller) as first, committer(caller) as second:
        await first.tells(("ann", 1))
        await second.tells(("bob", 1))
        await second.commits()
        assert names(await watcher.take(1)) == [("bob", 1)]
        await second.tells(("bob", 2), ("cid", 1))
        await second.commits()
        assert names(await watcher.take(2)) == [("bob", 2), ("cid", 1)]
        await first.commits()
        assert names(await watcher.take(1)) == [("ann", 1)]
    again = Watcher(caller, resume_token=watcher.tokens[0])
    assert names(await again.take(3)) == [("bob", 2), ("cid", 1), ("ann", 1)]


async def test_notifications_of_a_gauge_come_in_the_order_of_its_evaluations(caller: Caller) -> None:
    watcher = await watch(caller)
    async with committer(caller) as later, committer(caller) as bystander, committer(caller) as earlier:
        # As when an ingest stores its events, and then waits for a gauge that another one holds.
        await later.takes_a_transaction_id()
        await bystander.tells(("other", 1))
        await earlier.tells(("ann", 1))
        await earlier.commits()
        await later.tells(("ann", 2))
        await later.commits()
        # And the transaction in between, which is still open, holds up nobody.
        assert names(await watcher.take(2)) == [("ann", 1), ("ann", 2)]
        await bystander.commits()
        assert names(await watcher.take(1)) == [("other", 1)]


async def test_notifications_of_a_rolled_back_transaction_are_not_received(caller: Caller) -> None:
    watcher = await watch(caller)
    async with committer(caller) as writer:
        await writer.tells(("ann", 1), ("bob", 1))
        await writer.rolls_back()
        await writer.tells(("ann", 1))
        await writer.commits()
        assert names(await watcher.take(1)) == [("ann", 1)]
        await writer.tells(("bob", 1))
        await writer.commits()
    again = Watcher(caller, resume_token=watcher.tokens[0])
    assert names(await again.take(1)) == [("bob", 1)]


async def test_resume_tokens_of_two_servers_are_equal_when_both_waited_for_positions(caller: Caller) -> None:
    """Two servers read one feed while the lock that gives places is held by a third: neither gets ahead."""
    async with beside(caller) as other, committer(caller) as writer:
        await writer.tells(("ann", 1))
        await writer.commits()
        one, two = await watch(caller), await watch(other)
        async with committer(caller) as holder:
            await holder.holds_the_feed()
            await writer.tells(("ann", 2), ("bob", 1))
            await writer.commits()
            await waiting_for_locks(caller, 2)
        assert names(await one.take(2)) == names(await two.take(2)) == [("ann", 2), ("bob", 1)]
        assert one.tokens == two.tokens


async def test_two_concurrent_assignments_give_each_position_once(caller: Caller) -> None:
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    database = Database(caller.database_url)

    async def place() -> int:
        async with database.transaction() as connection:
            return await feed.assign_positions(connection, organization_id)

    async with committer(caller) as writer:
        await writer.tells(("ann", 1))
        await writer.commits()
        assert await place() == 1
        await writer.tells(("ann", 2))
        await writer.commits()
        async with database.transaction() as first:
            assert await feed.assign_positions(first, organization_id) == 1
            await writer.tells(("ann", 3), ("ann", 4))
            await writer.commits()
            second = asyncio.create_task(place())
            await waiting_for_locks(caller)
        assert await second == 2
        assert await place() == 0
    await database.close()
    assert await caller.rows(
        "SELECT place, sequence FROM feed_entry"
        " JOIN notification USING (organization_id, customer_id, notification_id)"
        " WHERE organization_id = %(organization_id)s ORDER BY place"
    ) == [(1, 1), (2, 2), (3, 3), (4, 4)]


async def test_subscribers_of_two_servers_receive_everything_in_one_order(caller: Caller) -> None:
    customers = [f"customer-{number}" for number in range(12)]
    ladder = [threshold_pb2.Threshold(value=value, notify_on=BOTH) for value in ("-10", "0", "3", "10", "25")]
    async with beside(caller) as other:
        await caller.create(usage_alert(ladder=ladder))
        await caller.create(usage_alert(ladder=ladder[:3], groups=[("region", None)]))
        watchers = [await watch(caller), await watch(other)]
        beginning = watchers[0].token

        async def send(name: str, through: Caller) -> None:
            rng = random.Random(name)
            stream = through.stream()
            for number in range(60):
                events = [
                    through.event(
                        f"{name}-{number}-{place}",
                        str(rng.randint(-9, 9)),
                        rng.choice(customers),
                        region=rng.choice(("eu", "us")),
                    )
                    for place in range(rng.randint(1, 3))
                ]
                await stream.write(alert_service_pb2.EvaluateUsageRequest(events=events))
                if rng.random() < 0.5:
                    await asyncio.sleep(0.002)
            await stream.done_writing()
            async with within("the end of a stream of usage"):
                async for answer in stream:
                    assert not answer.rejected

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(send(f"client-{number}", (caller, other)[number % 2]))
        stored = await caller.notifications()
        assert len(stored) > 50
        told = [await watcher.take(len(stored)) for watcher in watchers]
    assert told[0] == told[1]
    assert watchers[0].tokens == watchers[1].tokens
    assert sorted(one.notification_id for one in told[0]) == sorted(one.notification_id for one in stored)
    sequences: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for one in told[0]:
        sequences[one.alert_id, _gauge(one)].append(one.sequence)
    assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())
    # Whatever a client has worked off, the rest comes, the same, from the token of it.
    for number in (0, 1, len(stored) // 2, len(stored) - 2):
        token = ([beginning, *watchers[0].tokens])[number]
        assert await Watcher(caller, resume_token=token).take(len(stored) - number) == told[0][number:]


async def test_each_resume_token_continues_with_exactly_the_rest(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of which some are in the tail, and some have to be read from the database, page by page.
    monkeypatch.setattr(tail, "MAX_ENTRIES", 4)
    monkeypatch.setattr(feeds, "CATCH_UP_LIMIT", 3)
    monkeypatch.setattr(feeds, "CATCH_UP_SPAN", 5)
    monkeypatch.setattr(feeds, "READ_LIMIT", 2)
    watcher = await watch(caller)
    beginning = watcher.token
    async with committer(caller) as writer:
        for number in range(1, 13):
            await writer.tells(("ann", number), *([("bob", number)] if number % 3 == 0 else []))
            await writer.commits()
        told = await watcher.take(16)
        for place, token in enumerate([beginning, *watcher.tokens]):
            again = await watch(caller, resume_token=token)
            assert await again.take(16 - place) == told[place:]
            again.call.cancel()
        only_bob = await watch(caller, customer_ids=["bob"], start_time=told[0].create_time)
        assert names(await only_bob.take(4)) == [("bob", 3), ("bob", 6), ("bob", 9), ("bob", 12)]
        # They read nothing more, and are all told what comes next.
        await writer.tells(("bob", 13))
        await writer.commits()
        for each in (watcher, only_bob):
            assert names(await each.take(1)) == [("bob", 13)]


async def test_a_slow_subscriber_receives_everything_when_it_reads_again(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MAX_ENTRIES", 10)
    slow, quick = await watch(caller), await watch(caller)
    async with committer(caller) as writer:
        # More than the buffers of a connection take while nobody reads.
        for start in range(1, 2_001, 100):
            await writer.tells(*(("ann", number) for number in range(start, start + 100)))
            await writer.commits()
    expected = [("ann", number) for number in range(1, 2_001)]
    assert names(await quick.take(2_000)) == expected
    assert names(await slow.take(2_000)) == expected


async def test_a_notification_without_a_hint_is_found_by_polling(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "POLL_INTERVAL", 0.02)
    watcher = await watch(caller)
    async with committer(caller) as writer:
        await writer.tells(("ann", 1))
        await writer.commits()
    assert names(await watcher.take(1)) == [("ann", 1)]
    # Committed without a word, as if the connection that listens had just been lost.
    await caller.rows(
        "WITH copied AS ("
        " INSERT INTO notification SELECT organization_id, customer_id, 'ntf_2', alert_id, gauge_id, 2, event_type,"
        " condition_type, create_time, body FROM notification WHERE organization_id = %(organization_id)s"
        " RETURNING organization_id, customer_id, notification_id"
        ") INSERT INTO feed_pending (organization_id, customer_id, notification_id) SELECT * FROM copied RETURNING 1"
    )
    assert names(await watcher.take(1)) == [("ann", 2)]


def _gauge(one: notification_pb2.Notification) -> str:
    return json.dumps(json.loads(one.body)["data"]["gauge"])
