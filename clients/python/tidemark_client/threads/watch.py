"""`Watcher`: the watcher for programs with threads."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from types import TracebackType

from tidemark_client.connection.target import Target
from tidemark_client.errors.exceptions import Cancelled
from tidemark_client.threads.background import LoopUser
from tidemark_client.v1.notification_pb2 import Notification
from tidemark_client.watch.watcher import AsyncWatcher, WatchOptions


class Watcher:
    """`AsyncWatcher` for one thread: `for notification in watcher`. Use it as `with`.

    `close` in another thread ends the iteration.
    """

    def __init__(self, target: Target, options: WatchOptions | None = None) -> None:
        self._options = options or WatchOptions()
        self._is_closed = False
        self._user = LoopUser()
        self._channel = self._user.make(target.async_channel)
        self._watcher = AsyncWatcher(self._channel, target.call_metadata, self._options)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Notification]:
        """Every notification, without end; raises as `AsyncWatcher` does."""
        notifications = aiter(self._watcher)

        async def following() -> Notification | None:
            return await anext(notifications, None)

        try:
            while (notification := self._user.call(following())) is not None:
                yield notification
        except (Cancelled, concurrent.futures.CancelledError):
            if not self._is_closed:
                raise
        finally:
            if not self._is_closed:
                self._user.call(notifications.aclose())

    def run(self, handler: Callable[[Notification], None]) -> None:
        """Calls the handler with every notification, one after the other, without end. An error of it is raised."""
        for notification in self:
            handler(notification)

    def close(self) -> None:
        """Ends the connection."""
        if not self._is_closed:
            self._is_closed = True
            self._user.call(self._channel.close())
            self._user.close()
