"""Shares of the pool: one organization whose transactions all wait leaves connections for the others.

Whoever acts for an organization says so once, with `act_for`; every transaction of that task and of the tasks that it
creates counts for it from then on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from store.failures import ORGANIZATION_BUSY, unavailable

_acting_for: ContextVar[int | None] = ContextVar("acting_for", default=None)


def act_for(organization_id: int) -> None:
    """Counts the transactions of this task, and of those that it creates, for that organization."""
    _acting_for.set(organization_id)


class Shares:
    """How many connections of one pool each organization uses at the moment, and who waits for one."""

    def __init__(self, pool_size: int, timeout: float) -> None:
        """timeout: seconds to wait for a connection of the organization's share."""
        # A small pool has nothing to divide. Otherwise a third stays for the others, whatever one of them does.
        self._limit = pool_size if pool_size < 3 else pool_size - pool_size // 3
        self._timeout = timeout
        self._gates: dict[int, tuple[asyncio.Semaphore, int]] = {}  # and how many use it or wait

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """A place in the share of the organization that this task acts for, held for as long as the block lasts.

        Raises DatabaseUnavailable when none becomes free in time.
        """
        organization_id = _acting_for.get()
        if organization_id is None:
            yield
            return
        gate, users = self._gates.get(organization_id) or (asyncio.Semaphore(self._limit), 0)
        self._gates[organization_id] = gate, users + 1
        try:
            if gate.locked():
                try:
                    async with asyncio.timeout(self._timeout):
                        await gate.acquire()
                except TimeoutError:
                    raise unavailable(ORGANIZATION_BUSY) from None
            else:
                await gate.acquire()
            try:
                yield
            finally:
                gate.release()
        finally:
            gate, users = self._gates[organization_id]
            if users == 1:
                del self._gates[organization_id]
            else:
                self._gates[organization_id] = gate, users - 1
