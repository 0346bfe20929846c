"""Late bodies: of notifications that did not show when their deliveries were claimed.

Where the tables lie on several nodes, a commit shows on the node of the queue milliseconds before it shows on that
of the notification. The claim is committed without the body, so that no endpoint stays locked, and the body is
looked for again a little later.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from runtime.actions import LogAction
from store.deliveries.claims import Claim, read_late_bodies
from store.postgres.database import Database, DatabaseUnavailable

PAUSE = 0.01  # seconds before each look
LOOKS = 20  # for one body

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Waiting:
    claim: Claim
    looks: int = 0
    over: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LateBodies:
    """Looks for the bodies of claims; for all that wait in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def find(self, claim: Claim) -> None:
        """Waits until the claim has its body, or until it was looked for LOOKS times, or the database is away."""
        waiting = _Waiting(claim)
        self._waiting.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="late bodies")
        await waiting.over

    async def stop(self) -> None:
        """Ends; the attempts that wait must have ended before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        """Looks until nothing waits."""
        error: Exception | None = None
        try:
            while self._waiting:
                await asyncio.sleep(PAUSE)
                self._waiting = [one for one in self._waiting if not one.over.done()]  # without those cut off
                await self._look_once()
        except DatabaseUnavailable as unavailable:
            logger.warning("bodies cannot be looked for: %s", unavailable, extra={"action": LogAction.DATABASE_LOST})
        except Exception as fault:
            error = fault
        finally:
            self._task = None
            for one in self._waiting:
                _end(one, error)
            self._waiting = []

    async def _look_once(self) -> None:
        looked_for = list(self._waiting)
        if not looked_for:
            return
        async with self._database.transaction() as connection:
            await read_late_bodies(connection, [one.claim for one in looked_for])
        for one in looked_for:
            one.looks += 1
            if one.claim.body is not None or one.looks == LOOKS:
                _end(one)
                self._waiting.remove(one)


def _end(waiting: _Waiting, error: Exception | None = None) -> None:
    if waiting.over.done():
        return
    if error is None:
        waiting.over.set_result(None)
    else:
        waiting.over.set_exception(error)
