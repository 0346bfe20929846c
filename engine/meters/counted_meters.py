"""Counted meters: what meters count that checks had to count themselves, because nothing has moved them yet.

A check writes nothing, and its meter is counted from the stored events. All usage moves its meters, so what was
counted stays right until the meter is stored: it is kept, for a while and in a bounded number.
"""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

# Of one organization: meters, and minutes of those of rolling windows. About 10 MB.
MOST_KEPT = 20_000
# Meters of windows that ended long ago are deleted, and erasures delete events: afterwards a meter is counted anew.
KEPT = timedelta(minutes=5)


class Counted(NamedTuple):
    """What a meter counts. epoch: of the organization, until which it has missed nothing. time: at which it was."""

    counted: Decimal
    minutes: Mapping[datetime, Decimal]
    epoch: int
    time: datetime


class CountedMeters:
    """Those of one organization, by `MeterCell.key`."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._size = 0
        self._found = OrderedDict[str, Counted]()

    def __len__(self) -> int:
        """The meters that are kept."""
        return len(self._found)

    def get(self, key: str, epoch: int, now: datetime) -> Counted | None:
        """What a meter counts that has to have missed nothing until an epoch; None if that is not known."""
        found = self._found.get(key)
        if found is None:
            return None
        if found.epoch < epoch or not found.time <= now < found.time + KEPT:
            self._forget(key)
            return None
        self._found.move_to_end(key)
        return found

    def add(self, key: str, counted: Counted) -> None:
        """Keeps what a meter counts; forgets those that were not used for the longest time."""
        self._forget(key)
        self._found[key] = counted
        self._size += _size_of(counted)
        while self._size > self._most:
            self._forget(next(iter(self._found)))

    def _forget(self, key: str) -> None:
        found = self._found.pop(key, None)
        if found is not None:
            self._size -= _size_of(found)


def _size_of(counted: Counted) -> int:
    return 1 + len(counted.minutes)
