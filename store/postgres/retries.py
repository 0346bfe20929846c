"""Retries: repeats a transaction after a temporary failure of the database, with a bounded number of tries."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime.backoff import pause_after
from store.postgres.failures import CONFLICTS, DatabaseUnavailable

FIRST_PAUSE = 0.02  # seconds
LONGEST_PAUSE = 1.0  # seconds

Result = TypeVar("Result")


class Tries:
    """The tries of one transaction, counted for each kind of failure."""

    def __init__(self, *, certain_only: bool = False, first_pause: float = FIRST_PAUSE) -> None:
        """certain_only: repeats only if the failed try certainly stored nothing.

        Otherwise the transaction must be safe to repeat after a commit whose answer was lost. first_pause: seconds
        before the second try, about; doubled from try to try.
        """
        self._certain_only = certain_only
        self._first_pause = first_pause
        self._failed: Counter[str] = Counter()

    async def another(self, error: DatabaseUnavailable) -> bool:
        """Whether to try again after a try that ended with `error`; waits before it returns True.

        The failed try must have returned its connection.
        """
        failure = error.failure
        if error.given_up or (self._certain_only and not failure.rolled_back):
            return False
        self._failed[failure.kind] += 1
        if self._failed[failure.kind] >= failure.tries:
            error.given_up = True
            return False
        # The pause is partly random, so that two transactions that conflicted do not conflict again.
        await asyncio.sleep(pause_after(self._failed.total(), self._first_pause, LONGEST_PAUSE))
        return True


async def past_conflicts(work: Callable[[], Awaitable[Result]]) -> Result:
    """Runs `work`, which is one whole transaction, again after deadlocks and serialization failures.

    For loops that leave what has another failure, such as a lock that is held for long, and go on with the rest.
    Raises DatabaseUnavailable of the last try.
    """
    tries = Tries()
    while True:
        try:
            return await work()
        except DatabaseUnavailable as error:
            if error.failure not in CONFLICTS or not await tries.another(error):
                raise


async def repeated(work: Callable[[], Awaitable[Result]], *, certain_only: bool = False) -> Result:
    """Runs `work`, which is one whole transaction, as often as `Tries` allows.

    Raises DatabaseUnavailable of the last try.
    """
    tries = Tries(certain_only=certain_only)
    while True:
        try:
            return await work()
        except DatabaseUnavailable as error:
            if not await tries.another(error):
                raise
