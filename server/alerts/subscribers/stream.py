"""One stream of WatchNotifications: the notifications after a position, and heartbeats."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsResponse
from server.alerts.subscribers.feeds import Subscriber
from server.alerts.subscribers.resume_tokens import ResumeTokens
from server.mapping.notifications import shared_notification_message
from store.notifications.feed import FeedEntry, NotificationFilter


class SubscriberStream:
    """The answers to one subscriber.

    wanted: the filters. position: the stream begins after it. heartbeat: seconds without an answer.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        wanted: NotificationFilter,
        tokens: ResumeTokens,
        *,
        position: int,
        heartbeat: float,
    ) -> None:
        self._subscriber = subscriber
        self._wanted = wanted
        self._tokens = tokens
        self._position = position
        self._heartbeat = heartbeat
        self._loop = asyncio.get_running_loop()
        self._sent_time = 0.0  # of the last answer, on the loop's clock

    async def answers(self, ending: "asyncio.Task[None]") -> AsyncGenerator[WatchNotificationsResponse, None]:
        """A heartbeat with the first token, then the wanted notifications in the order of the feed, until `ending`.

        Raises EntriesDeleted when the notifications after the position are deleted.
        """
        yield self._heartbeat_answer()
        self._sent_time = self._loop.time()
        tail = self._subscriber.tail
        while not ending.done():
            grown = tail.grown(self._subscriber.number)  # before the read: growth after it is not missed
            entries, position = await self._read()
            for entry in entries:
                # Otherwise all subscribers of an organization would send in the same passes of the event loop.
                await self._subscriber.pieces.turn()
                yield self._notification_answer(entry)
                self._position, self._sent_time = entry.position, self._loop.time()
                if ending.done():
                    return
            self._position = position
            if not entries and not tail.is_behind(position):
                await self._wait(grown, ending)
            if not ending.done() and self._loop.time() >= self._sent_time + self._heartbeat:
                yield self._heartbeat_answer()
                self._sent_time = self._loop.time()

    def going_away(self) -> WatchNotificationsResponse:
        """The last answer of a stream that the server ends."""
        return WatchNotificationsResponse(resume_token=self._tokens.write(self._position), going_away=True)

    async def _read(self) -> tuple[Sequence[FeedEntry], int]:
        """The next wanted entries, and the position after them and the entries that are not wanted."""
        tail = self._subscriber.tail
        if tail.is_behind(self._position):
            return await self._subscriber.catch_up(self._position, self._wanted)
        entry = tail.next(self._position, self._wanted)
        if entry is not None:
            return (entry,), entry.position
        return (), max(self._position, tail.position or 0)

    async def _wait(self, grown: asyncio.Event, ending: "asyncio.Task[None]") -> None:
        """Waits until the tail grows, until the stream has to end, or until a heartbeat is due."""
        timeout = self._sent_time + self._heartbeat - self._loop.time()
        growth = asyncio.create_task(grown.wait(), name="watch-growth")
        try:
            await asyncio.wait({growth, ending}, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
        finally:
            growth.cancel()

    def _heartbeat_answer(self) -> WatchNotificationsResponse:
        return WatchNotificationsResponse(resume_token=self._tokens.write(self._position), heartbeat=True)

    def _notification_answer(self, entry: FeedEntry) -> WatchNotificationsResponse:
        return WatchNotificationsResponse(
            resume_token=self._tokens.write(entry.position), notification=shared_notification_message(entry)
        )
