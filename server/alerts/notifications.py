"""AlertService's notifications: their history, and the stream that tells of them as they come."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, cast

import grpc

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import error_reason_pb2
from server.alerts.watching.feeds import Feeds
from server.alerts.watching.tokens import ResumeTokens, invalid_token
from server.calls.errors import FailedPrecondition, NotFound
from server.calls.identity import current_organization
from server.calls.leaving import time_to_leave
from server.calls.lifecycle import Drain
from server.calls.open_streams import raise_if_revoked
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.interceptors.around import when_over
from server.mapping.notifications import notification_proto, read_wanted
from store.notifications import feed
from store.notifications import history as notification_history
from store.notifications.feed import EntriesDeleted, NotificationFilter
from store.postgres.database import Database

MAX_HEARTBEAT = 15.0  # seconds; the contract promises one at least that often
MAX_STREAM_AGE = 30 * 60.0  # seconds; below the grace that an aged connection gives its streams

Context = grpc.aio.ServicerContext[Any, Any]


class NotificationHandlers:
    """The handlers of tidemark.v1.AlertService that tell of notifications.

    heartbeat: seconds without anything to tell. retention: how long notifications are kept.
    """

    def __init__(
        self, database: Database, feeds: Feeds, drain: Drain, *, heartbeat: float, retention: timedelta
    ) -> None:
        self._database = database
        self._feeds = feeds
        self._drain = drain
        self._heartbeat = min(heartbeat, MAX_HEARTBEAT)
        self._retention = retention

    async def GetNotification(
        self, request: messages.GetNotificationRequest, context: Context
    ) -> messages.GetNotificationResponse:
        """One notification."""
        violations = Violations()
        notification_id = violations.identifier("notification_id", request.notification_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            await notification_history.assign_all_positions(connection, organization_id)
            found = await notification_history.get(connection, organization_id, notification_id)
        if found is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_NOTIFICATION_NOT_FOUND,
                f"there is no notification {notification_id!r}, or it was made more than {self._retention.days} days"
                " ago",
                metadata={"notification_id": notification_id},
            )
        return messages.GetNotificationResponse(notification=notification_proto(found))

    async def ListNotifications(
        self, request: messages.ListNotificationsRequest, context: Context
    ) -> messages.ListNotificationsResponse:
        """A page of notifications, the newest first."""
        violations = Violations()
        wanted = read_wanted(violations, request)
        start, end = _time(violations, request, "start_time"), _time(violations, request, "end_time")
        if start is not None and end is not None and end <= start and not violations.found:
            violations.add("end_time", "start_time has to lie before end_time")
        bound_to = (*_digestible(wanted), start.isoformat() if start else "", end.isoformat() if end else "")
        page = read_page(
            violations, request.page_size, request.page_token, "ListNotifications", bound_to, (datetime, int)
        )
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            await notification_history.assign_all_positions(connection, organization_id)
            rows = await notification_history.list_page(
                connection,
                organization_id,
                wanted,
                start_time=start,
                end_time=end,
                after=cast("tuple[datetime, int] | None", page.after),
                limit=page.limit,
            )
        shown = [notification_proto(row) for row in page.shown(rows)]
        page = page.cut(shown)
        return messages.ListNotificationsResponse(
            notifications=page.shown(shown),
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.position)),
        )

    async def WatchNotifications(
        self, request: messages.WatchNotificationsRequest, context: Context
    ) -> AsyncIterator[messages.WatchNotificationsResponse]:
        """Tells of notifications in the order of the feed, until the server drains or the stream is old."""
        violations = Violations()
        wanted = read_wanted(violations, request)
        start = _time(violations, request, "start_time")
        if start is not None and request.resume_token:
            violations.add("start_time", "a resume_token says already where the stream begins: leave one of them out")
        violations.raise_if_any()
        tokens = ResumeTokens(wanted)
        organization_id = current_organization().organization_id
        loop = asyncio.get_running_loop()
        watching = self._feeds.watch(organization_id)
        # Not only in `finally`: a generator that was dropped in the middle of a write runs it when Python collects
        # it, while gRPC calls back at once.
        when_over(context, lambda _: watching.end())
        leaving = asyncio.create_task(time_to_leave(self._drain, MAX_STREAM_AGE), name="watch-leaving")
        tail = watching.tail
        try:
            place = await self._beginning(organization_id, request.resume_token, start, tokens)
            yield messages.WatchNotificationsResponse(resume_token=tokens.write(place), heartbeat=True)
            told = loop.time()
            while not leaving.done():
                news = tail.news()
                if tail.is_behind(place):
                    assert tail.place is not None
                    entries, reached = await self._caught_up(organization_id, place, tail.place, wanted)
                    for entry in entries:
                        yield _told(entry, tokens)
                        place, told = entry.position, loop.time()
                        if leaving.done():
                            break
                    else:
                        place = reached
                elif (next_entry := tail.next(place, wanted)) is not None:
                    yield _told(next_entry, tokens)
                    place, told = next_entry.position, loop.time()
                else:
                    place = max(place, tail.place or 0)
                    await _first_of(news, leaving, told + self._heartbeat - loop.time())
                if not leaving.done() and loop.time() >= told + self._heartbeat:
                    yield messages.WatchNotificationsResponse(resume_token=tokens.write(place), heartbeat=True)
                    told = loop.time()
            raise_if_revoked()
            yield messages.WatchNotificationsResponse(resume_token=tokens.write(place), going_away=True)
        finally:
            watching.end()
            leaving.cancel()

    async def _beginning(
        self, organization_id: int, resume_token: str, start: datetime | None, tokens: ResumeTokens
    ) -> int:
        """The place behind which a stream begins."""
        async with self._feeds.reading(organization_id) as connection:
            if resume_token:
                place = tokens.read(resume_token)
                extent = await feed.extent(connection, organization_id)
                if place > extent.last_position:
                    # Of a database that was set back since. To wait for that place would skip what comes until then.
                    raise invalid_token()
                if place < extent.deleted_position:
                    raise self._expired()
                return place
            if start is not None:
                return await feed.position_before(connection, organization_id, start)
            await notification_history.assign_all_positions(connection, organization_id)
            return (await feed.extent(connection, organization_id)).last_position

    async def _caught_up(
        self, organization_id: int, place: int, newest: int, wanted: NotificationFilter
    ) -> tuple[list[feed.Entry], int]:
        try:
            return await self._feeds.catch_up(organization_id, place, newest, wanted)
        except EntriesDeleted:
            raise self._expired() from None

    def _expired(self) -> FailedPrecondition:
        days = str(self._retention.days)
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_RESUME_TOKEN_EXPIRED,
            f"what follows this place of the stream is deleted: notifications are kept for {days} days;"
            " begin with a start_time",
            metadata={"retention_days": days},
        )


def _told(entry: feed.Entry, tokens: ResumeTokens) -> messages.WatchNotificationsResponse:
    return messages.WatchNotificationsResponse(
        resume_token=tokens.write(entry.position), notification=notification_proto(entry)
    )


async def _first_of(news: asyncio.Event, leaving: "asyncio.Task[None]", timeout: float) -> None:
    """Waits until there is news, it is time to leave, or the time is over."""
    arrival = asyncio.create_task(news.wait(), name="watch-news")
    try:
        await asyncio.wait({arrival, leaving}, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
    finally:
        arrival.cancel()


def _time(
    violations: Violations, request: messages.ListNotificationsRequest | messages.WatchNotificationsRequest, name: str
) -> datetime | None:
    return violations.time(name, getattr(request, name)) if request.HasField(cast("Any", name)) else None


def _digestible(wanted: NotificationFilter) -> tuple[str, ...]:
    """The filters in a form in which the same ones are equal, whatever their order; ids have no line breaks."""
    return tuple(
        "\n".join(sorted(set(values)))
        for values in (wanted.customer_ids, wanted.alert_ids, wanted.condition_types, wanted.event_types)
    )
