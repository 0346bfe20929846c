"""The watch stream as its clients use it: its start, its filters, heartbeats, resume tokens and its end."""

import asyncio
import json
from datetime import timedelta

import grpc
import pytest

from engine.upkeep import Upkeep
from generated.tidemark.v1 import condition_pb2, threshold_pb2
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ALERT_REACHED,
    EVENT_TYPE_ALERT_RESOLVED,
    EVENT_TYPE_ENDPOINT_FAILING,
    EventType,
)
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.alerts.subscribers.feed_limits import FeedLimits
from server.alerts.subscribers.feeds import Feeds
from server.calls.validation import to_timestamp
from server.limits import ServerLimits
from store.notifications import feed
from tests.support.notifications.watching import Response, Subscriber, committer, names, notify, pool, watch
from tests.support.server.limits import with_server_limits
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import own_connections
from tests.support.usage.caller import BOTH, Caller, beside, spend_alert, until, usage_alert
from tests.support.usage.organizations import organization


async def test_a_streamed_notification_has_the_stored_body(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=[threshold_pb2.Threshold(value="10", notify_on=BOTH)]))
    subscriber = await watch(caller)
    answer = await caller.send(caller.event("e1", "12"))
    reached = await subscriber.next()
    await caller.send(caller.event("e2", "-5"))
    resolved = await subscriber.next()
    [[first], [second]] = await caller.rows(
        "SELECT body FROM notification WHERE organization_id = %(organization_id)s ORDER BY sequence"
    )
    assert (reached.body, resolved.body) == (first, second)
    [transition] = answer.transitions
    assert reached.notification_id == transition.notification_id
    assert (reached.event_type, resolved.event_type) == (EVENT_TYPE_ALERT_REACHED, EVENT_TYPE_ALERT_RESOLVED)
    assert (reached.sequence, resolved.sequence) == (1, 2)
    assert (reached.alert_id, reached.customer_id) == (alert.alert_id, "acme")
    assert reached.condition_type == condition_pb2.CONDITION_TYPE_USAGE_THRESHOLD_REACHED
    assert reached.create_time == to_timestamp(caller.clock.now())
    received = json.loads(reached.body)
    assert (received["id"], received["type"]) == (reached.notification_id, "alert.reached")
    assert (reached.alert_version, reached.alert_display_name) == (
        transition.alert_version,
        transition.alert_display_name,
    )
    assert reached.evaluation.gauge == transition.gauge
    [shown] = reached.evaluation.transitions
    assert (shown.kind, shown.level, shown.event_id) == (transition.kind, "10", "e1")
    assert resolved.evaluation.transitions[0].kind == threshold_pb2.TRANSITION_KIND_RESOLVED
    assert (resolved.evaluation.previous_value, resolved.evaluation.gauge.value) == ("12", "7")


async def test_a_stream_sends_only_what_passes_its_filters(caller: Caller) -> None:
    usage = await caller.create(usage_alert(thresholds=[threshold_pb2.Threshold(value="10", notify_on=BOTH)]))
    spend = await caller.create(spend_alert("10"))
    subscribers = {
        "bob": await watch(caller, customer_ids=["bob", "nobody"]),
        "usage": await watch(caller, alert_ids=[usage.alert_id]),
        "spend": await watch(caller, condition_types=[condition_pb2.CONDITION_TYPE_SPEND_THRESHOLD_REACHED]),
        "resolved": await watch(caller, event_types=[EVENT_TYPE_ALERT_RESOLVED]),
        "both": await watch(caller, customer_ids=["ann"], alert_ids=[spend.alert_id, usage.alert_id]),
    }
    for customer in ("ann", "bob"):
        await caller.send(caller.event(f"{customer}-1", "20", customer, cost="20"))
        await caller.send(caller.event(f"{customer}-2", "-20", customer))
    # Notifications that a filter must exclude come before the last ones that pass it.
    await caller.send(caller.event("last-1", "20", "ann", cost="-15"), caller.event("last-2", "0", "ann", cost="5"))
    await caller.send(caller.event("last-3", "-20", "ann"), caller.event("last-4", "20", "bob"))

    async def received(name: str, number: int) -> list[tuple[str, str, str]]:
        return sorted(
            (
                one.customer_id,
                "usage" if one.alert_id == usage.alert_id else "spend",
                EventType.Name(one.event_type).removeprefix("EVENT_TYPE_ALERT_").lower(),
            )
            for one in await subscribers[name].take(number)
        )

    assert await received("bob", 4) == [
        ("bob", "spend", "reached"),
        ("bob", "usage", "reached"),
        ("bob", "usage", "reached"),
        ("bob", "usage", "resolved"),
    ]
    assert len(await received("usage", 7)) == 7
    assert {name for _, name, _ in await received("spend", 3)} == {"spend"}
    assert {kind for _, _, kind in await received("resolved", 3)} == {"resolved"}
    assert {customer for customer, _, _ in await received("both", 6)} == {"ann"}


async def test_a_stream_begins_now_or_at_its_start_time(caller: Caller, clock: ManualClock) -> None:
    await notify(caller, ("ann", 1))
    clock.advance(timedelta(hours=1))
    await notify(caller, ("ann", 2))
    noon = to_timestamp(clock.now())
    clock.advance(timedelta(hours=1))
    await notify(caller, ("ann", 3))
    now = await watch(caller)
    then = await watch(caller, start_time=noon)
    always = await watch(caller, start_time=to_timestamp(clock.now() - timedelta(days=9)))
    later = await watch(caller, start_time=to_timestamp(clock.now() + timedelta(hours=1)))
    await notify(caller, ("ann", 4))
    for subscriber, first in ((now, 4), (then, 2), (always, 1), (later, 4)):
        assert names(await subscriber.take(5 - first)) == [("ann", number) for number in range(first, 5)]


async def test_a_stream_with_a_start_time_includes_notifications_that_committed_late(
    caller: Caller, clock: ManualClock
) -> None:
    subscriber = await watch(caller)  # a subscriber: each notification gets its position as soon as it is committed
    async with committer(caller) as slow:
        await slow.notifies(("ann", 1))
        clock.advance(timedelta(hours=1))
        await notify(caller, ("bob", 1))
        await subscriber.take(1)
        first = to_timestamp(clock.now())
        await slow.commits()
    clock.advance(timedelta(hours=1))
    await notify(caller, ("bob", 2))
    # The clock of the server that writes this one is behind.
    clock.advance(timedelta(minutes=-90))
    await notify(caller, ("cid", 1))
    await subscriber.take(3)
    early = await watch(caller, start_time=to_timestamp(clock.now()))
    assert names(await early.take(4)) == [("bob", 1), ("ann", 1), ("bob", 2), ("cid", 1)]
    assert names(await (await watch(caller, start_time=first)).take(2)) == [("bob", 1), ("ann", 1)]


async def test_a_resume_token_is_refused_by_another_stream(caller: Caller, clock: ManualClock) -> None:
    subscriber = await watch(caller, customer_ids=["bob", "ann"], event_types=[EVENT_TYPE_ALERT_REACHED])
    await notify(caller, ("ann", 1), ("ann", 2))
    await subscriber.take(2)
    token = subscriber.tokens[0]
    same = {"resume_token": token, "customer_ids": ["ann", "bob", "ann"], "event_types": [EVENT_TYPE_ALERT_REACHED]}
    assert names(await (await watch(caller, **same)).take(1)) == [("ann", 2)]

    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    for refused in (
        Subscriber(stranger, **same),
        Subscriber(caller, **(same | {"customer_ids": ["ann"]})),
        Subscriber(caller, **(same | {"alert_ids": ["alt_1"]})),
        Subscriber(caller, resume_token=token),
        Subscriber(caller, **(same | {"resume_token": token[:-2]})),
        Subscriber(caller, **(same | {"resume_token": "ä" + token})),
        Subscriber(caller, **(same | {"resume_token": "W10"})),
        Subscriber(caller, **(same | {"resume_token": token * 20})),
    ):
        error = await refused.refused()
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(error) == "ERROR_REASON_RESUME_TOKEN_INVALID"
        assert violations_of(error) == ["resume_token"]


async def test_a_resume_token_beyond_the_end_of_a_restored_feed_is_refused(caller: Caller) -> None:
    subscriber = await watch(caller)
    await notify(caller, ("ann", 1), ("ann", 2))
    await subscriber.take(2)
    await caller.rows(
        "WITH gone AS (DELETE FROM feed_entry WHERE organization_id = %(organization_id)s AND place = 2)"
        " UPDATE feed SET last_place = 1 WHERE organization_id = %(organization_id)s RETURNING 1"
    )
    assert reason_of(await Subscriber(caller, resume_token=subscriber.token).refused()) == (
        "ERROR_REASON_RESUME_TOKEN_INVALID"
    )


async def test_all_violations_of_a_watch_request_are_named(caller: Caller) -> None:
    subscriber = await watch(caller)
    error = await Subscriber(
        caller,
        resume_token=subscriber.token,
        start_time=to_timestamp(caller.clock.now()),
        customer_ids=["ann", " bob"],
        alert_ids=[f"alt_{number}" for number in range(101)],
        condition_types=[condition_pb2.CONDITION_TYPE_UNSPECIFIED],
        event_types=[EVENT_TYPE_ALERT_REACHED, EVENT_TYPE_ENDPOINT_FAILING],
    ).refused()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(error) == [
        "event_types[1]",
        "customer_ids[1]",
        "alert_ids",
        "condition_types[0]",
        "start_time",
    ]


async def test_a_subscriber_receives_only_notifications_of_its_organization(
    caller: Caller, clock: ManualClock
) -> None:
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    ours, theirs = await watch(caller), await watch(stranger)
    await notify(stranger, ("ann", 1), ("ann", 2), ("ann", 3))
    await notify(caller, ("ann", 7))
    await notify(stranger, ("ann", 4))
    assert names(await ours.take(1)) == [("ann", 7)]
    assert names(await theirs.take(4)) == [("ann", number) for number in range(1, 5)]
    # A token does not reveal how many notifications others have: both first tokens differ only by organization.
    assert len(ours.tokens[0]) == len(theirs.tokens[0])


async def test_heartbeats_advance_the_resume_token_of_a_quiet_subscriber(caller: Caller) -> None:
    configuration = Configuration(listen_port=0, propagation_delay=0.0, heartbeat=0.05)
    async with beside(caller, configuration) as other:
        quiet = await watch(other, customer_ids=["nobody"])
        beginning = quiet.token
        assert await quiet.heartbeat() == beginning
        await notify(caller, ("ann", 1), ("ann", 2))
        young = await quiet.heartbeat_after(beginning)
        again = await watch(caller, resume_token=young, customer_ids=["nobody"])
        assert again.token == young


async def test_a_stream_resumes_at_another_server_without_a_gap(caller: Caller, clock: ManualClock) -> None:
    async with beside(caller) as other:
        subscriber = await watch(other)
        await notify(caller, ("ann", 1), ("ann", 2))
        await subscriber.take(2)
        other.server.shutdown.request()
        last = await subscriber.answer()
        assert last == Response(resume_token=subscriber.tokens[1], going_away=True)
        assert await subscriber.answer() is None
        assert await subscriber.call.code() is grpc.StatusCode.OK
        await other.server.stopped
    await notify(caller, ("ann", 3))
    for token, rest in ((subscriber.tokens[0], [2, 3]), (subscriber.token, [3])):
        resumed = await watch(caller, resume_token=token)
        assert names(await resumed.take(len(rest))) == [("ann", number) for number in rest]


async def test_subscribers_are_limited_and_a_cancelled_one_frees_its_share(caller: Caller) -> None:
    configuration = Configuration(listen_port=0, propagation_delay=0.0, organization_watchers=2)
    async with beside(caller, configuration) as small:
        subscribers = [await watch(small), await watch(small)]
        error = await Subscriber(small).refused()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "ERROR_REASON_TOO_MANY_WATCHERS"

        async def has_room() -> bool:
            try:
                subscribers.append(await watch(small))
            except grpc.aio.AioRpcError:
                return False
            return True

        for number in range(3):
            # Also while 1,000 notifications are sent to a subscriber that does not read.
            async with committer(small) as writer:
                await writer.notifies(*(("ann", 1 + 1_000 * number + place) for place in range(1_000)))
                await writer.commits()
            subscribers.pop(0).call.cancel()
            await until(has_room)


async def test_a_resume_token_before_the_deleted_notifications_is_refused(caller: Caller, clock: ManualClock) -> None:
    subscriber = await watch(caller)
    beginning = subscriber.token
    for number in range(1, 6):
        await notify(caller, ("ann", number))
        clock.advance(timedelta(days=1))
    received = await subscriber.take(5)
    async with pool(caller) as database:
        # The first three are more than two days old.
        await Upkeep(database, clock, timedelta(days=400), timedelta(days=2, hours=12)).run_once()
        # A subscriber that was behind reads deleted entries, and gets an error.
        [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
        async with database.transaction() as connection:
            with pytest.raises(feed.EntriesDeleted):
                await feed.read(connection, organization_id, after=2, limit=1)
            assert [one.position for one in await feed.read(connection, organization_id, after=3, limit=9)] == [4, 5]
    for token in (beginning, subscriber.tokens[0], subscriber.tokens[1]):
        error = await Subscriber(caller, resume_token=token).refused()
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason_of(error) == "ERROR_REASON_RESUME_TOKEN_EXPIRED"
    assert await (await watch(caller, resume_token=subscriber.tokens[2])).take(2) == received[3:]
    assert await (await watch(caller, start_time=received[0].create_time)).take(2) == received[3:]
    await notify(caller, ("ann", 6))
    assert names(await subscriber.take(1)) == [("ann", 6)]


async def test_a_sweep_assigns_positions_in_feeds_without_subscribers(caller: Caller) -> None:
    await notify(caller, *(("ann", number) for number in range(1, 6)))
    async with pool(caller) as database:
        await Feeds(database).sweep()
        await Feeds(database).sweep()  # deletes what a cluster has left
    assert await caller.rows(
        "SELECT (SELECT count(*) FROM feed_pending WHERE organization_id = %(organization_id)s),"
        " (SELECT last_place FROM feed WHERE organization_id = %(organization_id)s)"
    ) == [(0, 5)]


# Without polls a notification arrives only by a hint of the listening connection.
@own_connections
@with_server_limits(ServerLimits(feeds=FeedLimits(retry_pause=0.01, poll_interval=3_600.0)))
async def test_streams_continue_after_the_database_connections_are_cut(caller: Caller) -> None:
    subscriber = await watch(caller)
    for number in range(1, 4):
        await until(lambda: listens(caller))
        await notify(caller, ("ann", number))
        assert names(await subscriber.take(1)) == [("ann", number)]
        await caller.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def listens(caller: Caller) -> bool:
    """Whether a server has a listening connection."""
    return bool(
        await caller.rows(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
            " AND state = 'idle'"
        )
    )


async def test_two_streams_of_one_connection_end_independently(caller: Caller) -> None:
    first, second = await watch(caller), await watch(caller)
    first.call.cancel()
    await notify(caller, ("ann", 1))
    assert names(await second.take(1)) == [("ann", 1)]
    with pytest.raises(asyncio.CancelledError):
        await first.answer()
