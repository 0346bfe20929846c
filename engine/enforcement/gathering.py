"""Gathering: after a large commit, the next one waits a little for more requests.

A commit costs more than a request in it. Many callers, each of which sends its next request after an
answer, would fall apart into small groups otherwise: the first one that is back would begin a commit alone.
"""

import asyncio
import time

LONGEST = 0.003  # seconds of a wait
MOST = 32  # that a group waits for: with so many, what each costs by itself is most of the cost


class Gathering:
    """How long the next group of one queue waits: for half of what the last one had (MOST), or half of its duration.

    After a group of up to three, there is no wait, so a few callers never wait.
    """

    __slots__ = ("_done", "_enough", "_longest", "_until")

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._enough = 0
        self._until = 0.0  # by `time.perf_counter`
        self._done: asyncio.Future[None] | None = None

    def ended(self, number: int, seconds: float) -> None:
        """Notes that a group has ended: how many it had, and how long it took."""
        self._enough = min(number // 2, MOST)
        self._until = time.perf_counter() + min(seconds / 2, self._longest)

    def arrived(self, waiting: int) -> None:
        """Notes that so many wait now."""
        if waiting >= self._enough:
            self._stop()

    async def wait(self, waiting: int) -> None:
        """Waits until the next group may begin. waiting: how many do now."""
        remaining = self._until - time.perf_counter()
        if waiting >= self._enough or remaining <= 0:
            return
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        timer = loop.call_later(remaining, self._stop)
        try:
            await self._done
        finally:
            timer.cancel()
            self._done = None

    def _stop(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
