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
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # of a heartbeat

    async def answers(self, ending: "asyncio.Future[None]") -> AsyncGenerator[WatchNotificationsResponse, None]:
        """A heartbeat with the first token, then the wanted notifications in the order of the feed, until `ending`.

        Raises EntriesDeleted when the notifications after the position are deleted.
        """
        yield self._heartbeat_answer()
        self._sent_time = self._loop.time()
        tail = self._subscriber.tail
        has_turn = False
        ending.add_done_callback(self._wake)
        try:
            while not ending.done():
                growths = tail.growths  # before the read: growth after it is not missed
                entries, position = await self._read()
                for entry in entries:
                    # Otherwise all subscribers of an organization would send in the same passes of the event loop.
                    if not has_turn:
                        await tail.pieces.turn()
                    has_turn = False
                    tail.collections.count()
                    yield self._notification_answer(entry)
                    self._position, self._sent_time = entry.position, self._loop.time()
                    if ending.done():
                        return
                self._position, has_turn = position, False
                if not entries and not tail.is_behind(position) and tail.growths == growths and not ending.done():
                    tail.collections.count()
                    await self._wait()
                    has_turn = tail.growths != growths
                if not ending.done() and self._loop.time() >= self._sent_time + self._heartbeat:
                    yield self._heartbeat_answer()
                    self._sent_time = self._loop.time()
        finally:
            ending.remove_done_callback(self._wake)
            tail.waits.forget(self._subscriber.number)
            if self._timer is not None:
                self._timer.cancel()

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

    async def _wait(self) -> None:
        """Waits until the tail has grown and this stream has a turn, or the stream has to end, or a heartbeat is due.

        A wait makes one future and nothing else: the objects of 10,000 subscribers that wait are many for the garbage
        collector.
        """
        self._waiting = self._subscriber.tail.waits.begin(self._subscriber.number)
        if self._timer is None:
            self._timer = self._loop.call_at(self._sent_time + self._heartbeat, self._beat)
        await self._waiting

    def _beat(self) -> None:
        """Wakes when a heartbeat may be due. An answer that was sent meanwhile delays it: the next wait sees that."""
        self._timer = None
        self._wake()

    def _wake(self, _ending: "asyncio.Future[None] | None" = None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _heartbeat_answer(self) -> WatchNotificationsResponse:
        return WatchNotificationsResponse(resume_token=self._tokens.write(self._position), heartbeat=True)

    def _notification_answer(self, entry: FeedEntry) -> WatchNotificationsResponse:
        return WatchNotificationsResponse(
            resume_token=self._tokens.write(entry.position), notification=shared_notification_message(entry)
        )
