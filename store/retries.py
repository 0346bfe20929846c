"""Repeating a transaction that the database refused for a reason that passes: bounded, with pauses between."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from store.failures import DatabaseUnavailable

FIRST_PAUSE = 0.02  # seconds; doubled from try to try
LONGEST_PAUSE = 1.0  # seconds

Result = TypeVar("Result")


async def repeated(work: Callable[[], Awaitable[Result]], *, certain_only: bool = False) -> Result:
    """Runs `work`, and again for as often as what failed it allows.

    `work` begins and ends its own transaction, so that nothing holds a connection during the pauses. certain_only:
    only while it is certain that the failed try left nothing; without it, `work` must be safe to repeat after a
    commit. Raises DatabaseUnavailable of the last try.
    """
    tried = 0
    while True:
        tried += 1
        try:
            return await work()
        except DatabaseUnavailable as error:
            if not await another_try(error, tried, certain_only=certain_only):
                raise


async def another_try(error: DatabaseUnavailable, tried: int, *, certain_only: bool = False) -> bool:
    """Whether to try again after `tried` tries of which the last ended with `error`; waits before it says so."""
    failure = error.failure
    if error.given_up or (certain_only and not failure.rolled_back):
        return False
    if tried >= failure.tries:
        error.given_up = True
        return False
    # Half of it is random: two transactions that met once do not meet again at the same place.
    pause = min(FIRST_PAUSE * 2 ** (tried - 1), LONGEST_PAUSE)
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    return True
