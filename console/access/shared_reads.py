"""Reads that many viewers of one key share: the same answer for a moment, and one call at a time."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

MAX_KEPT = 1_000  # answers


class SharedReads:
    """Answers by key and name, each kept for some seconds. An error is not kept."""

    def __init__(self) -> None:
        self._answers: dict[tuple[bytes, str], tuple[float, asyncio.Task[Any]]] = {}

    async def get(self, key: str | None, name: str, lifetime: float, read: Callable[[], Awaitable[Any]]) -> Any:
        """What `read` returns, or has returned in the last `lifetime` seconds to a viewer with the same key."""
        of = hashlib.sha256((key or "").encode()).digest(), name
        now = asyncio.get_running_loop().time()
        known = self._answers.get(of)
        if known is None or (known[0] <= now and known[1].done()):
            while len(self._answers) >= MAX_KEPT:
                self._answers.pop(next(iter(self._answers)))
            task = asyncio.ensure_future(read())
            # A viewer that leaves must not end the read of the others.
            task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
            known = self._answers[of] = now + lifetime, task
        try:
            return await asyncio.shield(known[1])
        except Exception:
            if self._answers.get(of) is known:
                del self._answers[of]
            raise
