"""The pause after a failure of ours; it doubles, so that a database that is away is not pestered."""

import asyncio
import random

FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 5.0  # seconds


class Backoff:
    """The pauses between tries of one thing."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def reset(self) -> None:
        """Begins anew, since the last try succeeded."""
        self._pause = FIRST_PAUSE

    async def sleep(self) -> None:
        """Waits before the next try. Half of it is random: several notifiers do not come back as one."""
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
