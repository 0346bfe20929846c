"""Few at once: of a heavy organization, few calls of one method run while a light one has calls in progress.

gRPC accepts the calls of one method one after the other, whichever organization they belong to, and each of them
takes several passes of the event loop. If all calls of a heavy organization run as soon as they are accepted, its
next ones wait to be accepted, and a call of another organization waits behind them. What waits here does not wait
there.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.turns import of_loop

MOST = 6  # calls of a heavy organization; about half of what keeps the event loop busy


class FewAtOnce:
    """The calls of one method that run, and those that wait, by organization."""

    def __init__(self, most: int = MOST) -> None:
        """most: calls of one heavy organization that run at the same time, 1 or more."""
        self._most = most
        self._running: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, organization_id: int) -> AsyncIterator[None]:
        """Runs the block in the organization's turn; its calls keep their order."""
        await self._begin(organization_id)
        try:
            yield
        finally:
            self._end(organization_id)

    async def _begin(self, organization_id: int) -> None:
        if organization_id not in self._waiting and not self._is_full(organization_id):
            self._running[organization_id] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organization_id, deque()).append(turn)
        try:
            await turn  # `_end` counts it as running
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._end(organization_id)  # it had its turn before it was cancelled
            raise

    def _end(self, organization_id: int) -> None:
        self._running[organization_id] -= 1
        waiting = self._waiting.get(organization_id, deque())
        while waiting and not self._is_full(organization_id):
            turn = waiting.popleft()
            if not turn.done():  # otherwise it was cancelled
                turn.set_result(None)
                self._running[organization_id] += 1
        if not waiting:
            self._waiting.pop(organization_id, None)
        if not self._running[organization_id]:
            del self._running[organization_id]

    def _is_full(self, organization_id: int) -> bool:
        turns = of_loop()
        return (
            self._running.get(organization_id, 0) >= self._most
            and turns.is_heavy(organization_id)
            and turns.has_or_had_light_neighbour(organization_id)
        )
