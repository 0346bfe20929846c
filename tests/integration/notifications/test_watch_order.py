"""The watch stream misses no notification and keeps one order, in whatever order transactions commit."""

import asyncio
import json
import random
from collections import defaultdict

from generated.tidemark.v1 import alert_service_pb2, notification_pb2, threshold_pb2, usage_pb2
from server.alerts.subscribers.feed_limits import FeedLimits
from server.limits import ServerLimits
from store.notifications.placed import Placed
from store.notifications.placing import assign_positions
from store.postgres.database import Database
from tests.support.notifications.watching import Subscriber, committer, names, watch
from tests.support.server.limits import with_server_limits
from tests.support.usage.caller import BOTH, Caller, beside, usage_alert, waiting_for_locks
from tests.support.waiting import within


async def test_a_notification_that_commits_late_is_received_late_and_not_missed(caller: Caller) -> None:
    subscriber = await watch(caller)
    async with committer(caller) as first, committer(caller) as second:
        await first.notifies(("ann", 1))
        await second.notifies(("bob", 1))
        await second.commits()
        assert names(await subscriber.take(1)) == [("bob", 1)]
        await second.notifies(("bob", 2), ("cid", 1))
        await second.commits()
        of_two_gauges = names(await subscriber.take(2))
        assert sorted(of_two_gauges) == [("bob", 2), ("cid", 1)]
        await first.commits()
        assert names(await subscriber.take(1)) == [("ann", 1)]
    again = Subscriber(caller, resume_token=subscriber.tokens[0])
    assert names(await again.take(3)) == [*of_two_gauges, ("ann", 1)]


async def test_notifications_of_a_gauge_come_in_the_order_of_its_evaluations(caller: Caller) -> None:
    subscriber = await watch(caller)
    async with committer(caller) as later, committer(caller) as bystander, committer(caller) as earlier:
        # Like an ingest that stores its events and then waits for a gauge that another one holds.
        await later.takes_a_transaction_id()
        await bystander.notifies(("other", 1))
        await earlier.notifies(("ann", 1))
        await earlier.commits()
        await later.notifies(("ann", 2))
        await later.commits()
        # The transaction in between is still open and delays no subscriber.
        assert names(await subscriber.take(2)) == [("ann", 1), ("ann", 2)]
        await bystander.commits()
        assert names(await subscriber.take(1)) == [("other", 1)]


async def test_notifications_of_a_rolled_back_transaction_are_not_received(caller: Caller) -> None:
    subscriber = await watch(caller)
    async with committer(caller) as writer:
        await writer.notifies(("ann", 1), ("bob", 1))
        await writer.rolls_back()
        await writer.notifies(("ann", 1))
        await writer.commits()
        assert names(await subscriber.take(1)) == [("ann", 1)]
        await writer.notifies(("bob", 1))
        await writer.commits()
    again = Subscriber(caller, resume_token=subscriber.tokens[0])
    assert names(await again.take(1)) == [("bob", 1)]


async def test_resume_tokens_of_two_servers_are_equal_when_both_waited_for_positions(caller: Caller) -> None:
    """Two servers read one feed while a third holds the lock for assigning positions: neither reads ahead."""
    async with beside(caller) as other, committer(caller) as writer:
        await writer.notifies(("ann", 1))
        await writer.commits()
        one, two = await watch(caller), await watch(other)
        async with committer(caller) as holder:
            await holder.holds_the_feed()
            await writer.notifies(("ann", 2), ("bob", 1))
            await writer.commits()
            await waiting_for_locks(caller, 2)
        order = names(await one.take(2))
        assert sorted(order) == [("ann", 2), ("bob", 1)]
        assert names(await two.take(2)) == order
        assert one.tokens == two.tokens


async def test_two_concurrent_assignments_give_each_position_once(caller: Caller) -> None:
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    database = Database(caller.database_url)

    async def place() -> int:
        async with database.transaction() as connection:
            return (await assign_positions(connection, organization_id)).number

    async with committer(caller) as writer:
        await writer.notifies(("ann", 1))
        await writer.commits()
        assert await place() == 1
        await writer.notifies(("ann", 2))
        await writer.commits()
        async with database.transaction() as first:
            assert await assign_positions(first, organization_id) == Placed(1)
            await writer.notifies(("ann", 3), ("ann", 4))
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
    thresholds = [threshold_pb2.Threshold(value=value, notify_on=BOTH) for value in ("-10", "0", "3", "10", "25")]
    async with beside(caller) as other:
        await caller.create(usage_alert(thresholds=thresholds))
        await caller.create(usage_alert(thresholds=thresholds[:3], groups=[("region", None)]))
        subscribers = [await watch(caller), await watch(other)]
        beginning = subscribers[0].token

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
                await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=events)))
                if rng.random() < 0.5:
                    await asyncio.sleep(0.002)
            await stream.done_writing()
            async with within("the end of a stream of usage"):
                async for answer in stream:
                    assert not answer.outcome.rejected

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(send(f"client-{number}", (caller, other)[number % 2]))
        stored = await caller.notifications()
        assert len(stored) > 50
        received = [await subscriber.take(len(stored)) for subscriber in subscribers]
    assert received[0] == received[1]
    assert subscribers[0].tokens == subscribers[1].tokens
    assert sorted(one.notification_id for one in received[0]) == sorted(one.notification_id for one in stored)
    sequences: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for one in received[0]:
        sequences[one.alert_id, _gauge(one)].append(one.sequence)
    assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())
    # From the token of each processed notification, the stream continues with the same rest.
    for number in (0, 1, len(stored) // 2, len(stored) - 2):
        token = ([beginning, *subscribers[0].tokens])[number]
        assert await Subscriber(caller, resume_token=token).take(len(stored) - number) == received[0][number:]


# Small limits: some notifications are in the tail, and others are read from the database in pages.
@with_server_limits(
    ServerLimits(feeds=FeedLimits(tail_entries=4, catch_up_entries=3, catch_up_span=5, read_entries=2))
)
async def test_each_resume_token_continues_with_exactly_the_rest(caller: Caller) -> None:
    subscriber = await watch(caller)
    beginning = subscriber.token
    async with committer(caller) as writer:
        for number in range(1, 13):
            await writer.notifies(("ann", number), *([("bob", number)] if number % 3 == 0 else []))
            await writer.commits()
        received = await subscriber.take(16)
        for place, token in enumerate([beginning, *subscriber.tokens]):
            again = await watch(caller, resume_token=token)
            assert await again.take(16 - place) == received[place:]
            again.call.cancel()
        only_bob = await watch(caller, customer_ids=["bob"], start_time=received[0].create_time)
        assert names(await only_bob.take(4)) == [("bob", 3), ("bob", 6), ("bob", 9), ("bob", 12)]
        # Both subscribers read up to the end, and receive the next notification.
        await writer.notifies(("bob", 13))
        await writer.commits()
        for each in (subscriber, only_bob):
            assert names(await each.take(1)) == [("bob", 13)]


@with_server_limits(ServerLimits(feeds=FeedLimits(tail_entries=10)))
async def test_a_slow_subscriber_receives_everything_when_it_reads_again(caller: Caller) -> None:
    slow, quick = await watch(caller), await watch(caller)
    async with committer(caller) as writer:
        # More than the buffers of a connection take while the client does not read.
        for start in range(1, 2_001, 100):
            await writer.notifies(*(("ann", number) for number in range(start, start + 100)))
            await writer.commits()
    expected = [("ann", number) for number in range(1, 2_001)]
    assert names(await quick.take(2_000)) == expected
    assert names(await slow.take(2_000)) == expected


@with_server_limits(ServerLimits(feeds=FeedLimits(poll_interval=0.02)))
async def test_a_notification_without_a_hint_is_found_by_polling(caller: Caller) -> None:
    subscriber = await watch(caller)
    async with committer(caller) as writer:
        await writer.notifies(("ann", 1))
        await writer.commits()
    assert names(await subscriber.take(1)) == [("ann", 1)]
    # Committed without a hint, as if the listening connection had just been lost.
    await caller.rows(
        "WITH copied AS ("
        " INSERT INTO notification SELECT organization_id, customer_id, 'ntf_2', alert_id, gauge_id, 2, event_type,"
        " condition_type, create_time, body FROM notification WHERE organization_id = %(organization_id)s"
        " RETURNING organization_id, customer_id, notification_id"
        ") INSERT INTO feed_pending (organization_id, customer_id, notification_id) SELECT * FROM copied RETURNING 1"
    )
    assert names(await subscriber.take(1)) == [("ann", 2)]


def _gauge(one: notification_pb2.Notification) -> str:
    return json.dumps(json.loads(one.body)["data"]["gauge"])
