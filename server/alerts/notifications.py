"""AlertService: the history of notifications, and the stream of new ones."""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, cast

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import error_reason_pb2
from server.alerts.omitted_notifications import read_token, token
from server.alerts.subscribers.feeds import Feeds
from server.alerts.subscribers.resume_tokens import ResumeTokens, invalid_token
from server.alerts.subscribers.stream import SubscriberStream
from server.authentication.revocation import raise_if_revoked
from server.calls.answer_size import read_room
from server.calls.context import Context, when_over
from server.calls.current_call import current_organization
from server.calls.errors import NotFound
from server.calls.lifecycle import Drain
from server.calls.paging import invalid_page_token, read_page
from server.calls.stream_end import stream_end
from server.calls.validation import Violations
from server.mapping.notifications import notification_message, read_wanted
from store.notifications import feed, omitted
from store.notifications import history as notification_history
from store.notifications.feed import EntriesDeleted, NotificationFilter
from store.postgres.database import Database

MAX_HEARTBEAT = 15.0  # seconds; the contract promises a heartbeat at least that often


class NotificationHandlers:
    """Serves the RPCs that return notifications.

    heartbeat: seconds without an answer until a stream sends a heartbeat. retention: how long notifications are kept.
    page_bytes: of the notifications of a page, unless the request asks for more.
    """

    def __init__(
        self,
        database: Database,
        feeds: Feeds,
        drain: Drain,
        *,
        heartbeat: float,
        retention: timedelta,
        page_bytes: int,
    ) -> None:
        self._database = database
        self._feeds = feeds
        self._drain = drain
        self._heartbeat = min(heartbeat, MAX_HEARTBEAT)
        self._retention = retention
        self._page_bytes = page_bytes

    async def GetNotification(
        self, request: messages.GetNotificationRequest, context: Context
    ) -> messages.GetNotificationResponse:
        """One notification."""
        violations = Violations()
        notification_id = violations.identifier("notification_id", request.notification_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with notification_history.reading(self._database, organization_id) as connection:
            found = await notification_history.get(connection, organization_id, notification_id)
        if found is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_NOTIFICATION_NOT_FOUND,
                f"notification {notification_id!r} not found: there is none, or it is older than"
                f" {self._retention.days} days",
                metadata={"notification_id": notification_id},
            )
        return messages.GetNotificationResponse(notification=notification_message(found))

    async def ListNotifications(
        self, request: messages.ListNotificationsRequest, context: Context
    ) -> messages.ListNotificationsResponse:
        """A page of notifications, the newest first, or of those that an answer to usage left out."""
        omission = read_token(request.page_token)
        if omission is not None:
            return await self._list_omitted(request, *omission)
        violations = Violations()
        wanted = read_wanted(violations, request)
        start, end = _time(violations, request, "start_time"), _time(violations, request, "end_time")
        if start is not None and end is not None and end <= start and not violations.found:
            violations.add("end_time", "start_time must be before end_time")
        bound_to = (*_canonical(wanted), start.isoformat() if start else "", end.isoformat() if end else "")
        page = read_page(
            violations, request.page_size, request.page_token, "ListNotifications", bound_to, (datetime, int)
        )
        room = read_room(violations, request.max_answer_bytes, self._page_bytes)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with notification_history.reading(self._database, organization_id) as connection:
            found = await notification_history.list_page(
                connection,
                organization_id,
                wanted,
                between=(start, end),
                after=cast("tuple[datetime, int] | None", page.after),
                limit=page.limit,
            )
        answer = messages.ListNotificationsResponse()
        page = await page.cut_into(answer.notifications, map(notification_message, page.shown(found.items)), room)
        answer.next_page_token = page.next_token(found.items, lambda row: (row.create_time, row.position), found.end)
        return answer

    async def _list_omitted(
        self, request: messages.ListNotificationsRequest, list_id: str, after: int
    ) -> messages.ListNotificationsResponse:
        """A page of the notifications that an answer to usage left out, in the order of their transitions."""
        violations = Violations()
        for path in ("start_time", "end_time", "customer_ids", "alert_ids", "condition_types", "event_types"):
            value = getattr(request, path)
            if request.HasField(cast("Any", path)) if path.endswith("_time") else value:
                violations.add(path, "the page_token of omitted notifications takes no filters: leave it unset")
        page = read_page(violations, request.page_size, "", "ListNotifications", (), ())
        room = read_room(violations, request.max_answer_bytes, self._page_bytes)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with notification_history.reading(self._database, organization_id) as connection:
            found = await omitted.read(connection, organization_id, list_id, after=after, limit=page.limit)
        if found is None:
            raise invalid_page_token()
        answer = messages.ListNotificationsResponse()
        page = await page.cut_into(
            answer.notifications, (notification_message(entry) for _, entry in page.shown(found)), room
        )
        more = len(found) > page.size
        answer.next_page_token = token(list_id, found[page.size - 1][0]) if more else ""
        return answer

    async def WatchNotifications(
        self, request: messages.WatchNotificationsRequest, context: Context
    ) -> AsyncIterator[messages.WatchNotificationsResponse]:
        """Sends notifications in the order of the feed, until the server drains or the stream is too old.

        Raises EntriesDeleted when the notifications after the beginning are deleted.
        """
        violations = Violations()
        wanted = read_wanted(violations, request)
        start = _time(violations, request, "start_time")
        if start is not None and request.resume_token:
            violations.add("start_time", "the resume_token sets where the stream begins: leave one of them unset")
        violations.raise_if_any()
        tokens = ResumeTokens(wanted)
        organization_id = current_organization().organization_id
        subscriber = self._feeds.subscribe(organization_id)
        when_over(lambda _: subscriber.end())
        ending = stream_end(self._drain)
        try:
            position = await self._beginning(organization_id, request.resume_token, start, tokens)
            stream = SubscriberStream(subscriber, wanted, tokens, position=position, heartbeat=self._heartbeat)
            async with contextlib.aclosing(stream.answers(ending)) as answers:
                async for answer in answers:
                    yield answer
                    del answer
            raise_if_revoked()
            yield stream.going_away()
        finally:
            subscriber.end()
            ending.cancel()

    async def _beginning(
        self, organization_id: int, resume_token: str, start: datetime | None, tokens: ResumeTokens
    ) -> int:
        """The position after which a stream begins. Raises EntriesDeleted and InvalidArgument for its token."""
        async with self._feeds.reading(organization_id) as connection:
            if resume_token:
                position = tokens.read(resume_token)
                extent = await feed.extent(connection, organization_id)
                if position > extent.last_position:
                    # The database was restored to an older state. A stream that waits for this position would skip
                    # all notifications before it.
                    raise invalid_token()
                if position < extent.deleted_position:
                    raise EntriesDeleted
                return position
            if start is not None:
                return await feed.position_before(connection, organization_id, start)
            await notification_history.assign_all_positions(connection, organization_id)
            return (await feed.extent(connection, organization_id)).last_position


def _time(
    violations: Violations, request: messages.ListNotificationsRequest | messages.WatchNotificationsRequest, name: str
) -> datetime | None:
    return violations.time(name, getattr(request, name)) if request.HasField(cast("Any", name)) else None


def _canonical(wanted: NotificationFilter) -> tuple[str, ...]:
    """The filters as texts that are equal for equal filters, in whatever order; ids contain no line breaks."""
    return tuple(
        "\n".join(sorted(set(values)))
        for values in (wanted.customer_ids, wanted.alert_ids, wanted.condition_types, wanted.event_types)
    )
