"""Events and crossings over time, in at most so many parts of equal length, however long the time is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_PARTS = 1_024
# Lengths of a part, in seconds: a part of a clock, or days.
LENGTHS = (1, 2, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400)


class Columns(NamedTuple):
    """Counts in columns of equal length. first: the second since 1970 where the first begins. length: in seconds."""

    first: int
    length: int
    events: list[int]
    crossings: list[int]


@dataclass
class Timeline:
    """length: seconds of a part. events, crossings: counts by the number of the part since 1970.

    first, last: the earliest and the latest second of an event; None: there is none.
    """

    length: int = 1
    events: Counter[int] = field(default_factory=Counter)
    crossings: Counter[int] = field(default_factory=Counter)
    first: int | None = None
    last: int | None = None

    def add_events(self, seconds: list[int]) -> None:
        """Counts events at these seconds since 1970."""
        if not seconds:
            return
        first, last = min(seconds), max(seconds)
        self.first = first if self.first is None else min(first, self.first)
        self.last = last if self.last is None else max(last, self.last)
        length = self.length
        self.events.update(Counter([second // length for second in seconds]))
        self._widen()

    def add_crossing(self, second: int) -> None:
        """Counts a crossing at a second since 1970."""
        self.crossings[second // self.length] += 1
        self._widen()

    def _widen(self) -> None:
        while len(self.events) > MAX_PARTS or len(self.crossings) > MAX_PARTS:
            longer = next(
                (each for each in LENGTHS if each > self.length and not each % self.length), 2 * self.length
            )
            self.events, self.crossings = (
                _in_longer(each, self.length, longer) for each in (self.events, self.crossings)
            )
            self.length = longer

    def in_columns(self, count: int) -> Columns:
        """The events and the crossings in at most `count` columns."""
        if self.first is None or self.last is None:
            return Columns(0, 0, [], [])
        seconds = [part * self.length for part in (*self.events, *self.crossings)]
        first, last = min(seconds), max(seconds) + self.length
        length = max(self.length, -(-(last - first) // count))
        columns = -(-(last - first) // length)
        shown: list[list[int]] = []
        for counts in (self.events, self.crossings):
            column = [0] * columns
            for part, number in counts.items():
                column[(part * self.length - first) // length] += number
            shown.append(column)
        return Columns(first, length, *shown)


def _in_longer(counts: Counter[int], length: int, longer: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for part, number in counts.items():
        found[part * length // longer] += number
    return found
