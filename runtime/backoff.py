"""Back-off: the pause between two tries of one thing. It doubles, so that a service that is away is not flooded."""

import asyncio
import random

FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 5.0  # seconds
RANDOM_PART = 0.5  # of a pause, so that processes which lost one database do not return to it at once

_RANDOMNESS = random.Random()


class Backoff:
    """The pauses between tries of one thing.

    first, longest: seconds of the first pause and of the longest one, before a random part is taken off. random_part:
    the share of a pause that is random; a pause lasts between 1 - random_part and 1 of its length. failures: tries
    that failed since the last one that succeeded.
    """

    __slots__ = ("_first", "_longest", "_random_part", "_randomness", "failures")

    def __init__(
        self,
        first: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
        *,
        random_part: float = RANDOM_PART,
        randomness: random.Random = _RANDOMNESS,
    ) -> None:
        self._first = first
        self._longest = longest
        self._random_part = random_part
        self._randomness = randomness
        self.failures = 0

    def reset(self) -> None:
        """Begins anew, since the last try succeeded."""
        self.failures = 0

    def next(self) -> float:
        """Counts a failure; returns how many seconds to wait before the next try."""
        self.failures += 1
        return pause_after(
            self.failures, self._first, self._longest, random_part=self._random_part, randomness=self._randomness
        )

    async def sleep(self) -> None:
        """Counts a failure, and waits before the next try."""
        await asyncio.sleep(self.next())


def pause_after(
    failures: int,
    first: float,
    longest: float,
    *,
    random_part: float = RANDOM_PART,
    randomness: random.Random = _RANDOMNESS,
) -> float:
    """The seconds to wait after so many failures in a row, 1 or more; see Backoff for the others."""
    # The exponent is bounded: 2.0 ** 1024 overflows, and a database can be away for that many tries.
    length = min(first * 2.0 ** min(failures - 1, 64), longest)
    return length * randomness.uniform(1 - random_part, 1.0)
