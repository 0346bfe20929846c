"""`AsyncWatcher`: hands over one notification after the other, and keeps its position when each is done with."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.v1.alert_service_pb2 import WatchNotificationsRequest
from tidemark_client.v1.condition_pb2 import ConditionType
from tidemark_client.v1.event_type_pb2 import EventType
from tidemark_client.v1.notification_pb2 import Notification
from tidemark_client.watch.stream import NotificationStream, Position
from tidemark_client.watch.tokens import MemoryTokens, TokenStore

logger = logging.getLogger("tidemark_client.watch")

Handler = Callable[[Notification], "Awaitable[None] | None"]


def _log_interruption(sentence: str) -> None:
    logger.warning("the notification stream was interrupted: %s", sentence)


@dataclass(frozen=True)
class WatchOptions:
    """Which notifications a watcher hands over, and where it begins.

    customer_ids, alert_ids, condition_types, event_types: only these; empty: all. start_time: where to begin without
    a token; unset: now. tokens: where the position is kept; unset: in memory. on_interruption: called with a sentence
    whenever a stream broke; unset: it is logged.
    """

    customer_ids: Sequence[str] = ()
    alert_ids: Sequence[str] = ()
    condition_types: Sequence[ConditionType.ValueType] = ()
    event_types: Sequence[EventType.ValueType] = ()
    start_time: datetime | None = None
    tokens: TokenStore = field(default_factory=MemoryTokens)
    on_interruption: Callable[[str], None] = field(default=_log_interruption)

    def request(self, token: str) -> WatchNotificationsRequest:
        """The request that begins after the token. Raises ValueError for a time without a zone."""
        request = WatchNotificationsRequest(
            resume_token=token,
            customer_ids=self.customer_ids,
            alert_ids=self.alert_ids,
            condition_types=self.condition_types,
            event_types=self.event_types,
        )
        if self.start_time is not None and not token:
            if self.start_time.tzinfo is None:
                raise ValueError("start_time has no time zone")
            request.start_time.FromDatetime(self.start_time.astimezone(timezone.utc).replace(tzinfo=None))
        return request


class AsyncWatcher:
    """Notifications in the order of their commits, each once, through restarts of servers and lost connections.

    `async for notification in watcher` keeps the position when the next notification is asked for, `run` when the
    handler has returned. So a program that stops in the middle of a notification gets that one again: make its effect
    harmless to repeat, by `notification_id`; or use `positions`, and keep the token in the transaction of the effect.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata = (), options: WatchOptions | None = None
    ) -> None:
        self._channel = channel
        self._metadata = metadata
        self._options = options or WatchOptions()

    async def __aiter__(self) -> AsyncGenerator[Notification, None]:
        """Every notification, without end.

        Raises FailedPrecondition with the reason RESUME_TOKEN_EXPIRED if notifications after the kept position have
        been deleted because of their age, and another TidemarkError if a new stream would fail in the same way.
        """
        async for position in self.positions():
            if position.notification is not None:
                yield position.notification
            # Only now: the program is done with it.
            await asyncio.to_thread(self._options.tokens.save, position.resume_token)

    async def run(self, handler: Handler) -> None:
        """Calls the handler with every notification, one after the other, without end. An error of it is raised.

        Raises as the iteration does.
        """
        async for notification in self:
            result = handler(notification)
            if inspect.isawaitable(result):
                await result

    async def positions(self) -> AsyncGenerator[Position, None]:
        """Every notification and every heartbeat with its token, which the caller keeps.

        Raises as the iteration does.
        """
        token = await asyncio.to_thread(self._options.tokens.load)
        stream = NotificationStream(
            self._channel,
            self._metadata,
            self._options.request(token),
            self._options.on_interruption,
            must_begin=False,
        )
        async for position in stream.positions():
            yield position
