"""Back-off: the pause between two tries of one thing. It doubles, so that a server that is away is not flooded."""

from __future__ import annotations

import random

FIRST_PAUSE = 0.25  # seconds
LONGEST_PAUSE = 5.0  # seconds
_RANDOM_PART = 0.5  # of a pause, so that clients that lost one server do not return to it at once
_MOST_DOUBLINGS = 64  # 2.0 ** 1024 overflows, and a server can be away for that many tries


class Backoff:
    """The pauses between tries. first, longest: seconds, before a random part of up to a half is taken off."""

    __slots__ = ("_failures", "_first", "_longest")

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    def reset(self) -> None:
        """Begins anew, since the last try succeeded."""
        self._failures = 0

    def next(self) -> float:
        """Counts a failure; returns how many seconds to wait before the next try."""
        length = min(self._first * 2.0 ** min(self._failures, _MOST_DOUBLINGS), self._longest)
        self._failures += 1
        return length * random.uniform(1 - _RANDOM_PART, 1.0)
