"""The results of claims that are not written yet: attempts, and claims to give back."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from store.deliveries.claims import Claim
from store.deliveries.results import AttemptRecord


@dataclass(frozen=True)
class Return:
    """A claim to give back without an attempt."""

    claim: Claim
    delay: timedelta  # until the delivery is due again


Result = AttemptRecord | Return


class Results:
    """A queue from the attempts, which add results, to the recorder, which writes them."""

    def __init__(self) -> None:
        self._waiting: list[Result] = []
        self._added = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, result: Result) -> None:
        """Adds a result; it is written soon."""
        self._waiting.append(result)
        self._added.set()

    async def wait(self) -> None:
        """Waits until there are results."""
        while not self._waiting:
            self._added.clear()
            await self._added.wait()

    def first(self, number: int) -> list[Result]:
        """Up to `number` results, the oldest first; they stay in the queue until they are removed."""
        return self._waiting[:number]

    def still_waiting(self, results: Sequence[Result]) -> list[Result]:
        """Those of `results` that have not been removed."""
        waiting = set(map(id, self._waiting))
        return [result for result in results if id(result) in waiting]

    def remove(self, results: Sequence[Result]) -> None:
        """Removes results that are written, or that are given up."""
        gone = set(map(id, results))
        self._waiting = [result for result in self._waiting if id(result) not in gone]

    def move_back(self, results: Sequence[Result]) -> None:
        """Moves results behind all others, which may be written before them."""
        self.remove(results)
        self._waiting += results
