"""Overrides: thresholds of their own for some groups of an alert, and which of them a group has."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from evaluator.gauges import Group
from evaluator.thresholds import Threshold

MAX_OVERRIDES = 1_000  # of one alert

Bound = TypeVar("Bound")


@dataclass(frozen=True)
class Override:
    """The thresholds of the groups that have these values of these keys; none: those groups are silent.

    bound: in the caller's order; the alert's other keys may have any value.
    """

    bound: Group
    thresholds: tuple[Threshold, ...]

    @property
    def binding(self) -> Group:
        """What it binds, in whatever order the caller named it."""
        return tuple(sorted(self.bound))


class MostSpecific(Generic[Bound]):
    """Things that are bound to groups; of several that fit a group the one that binds most keys, or else the first.

    A look-up costs as much for a thousand of them as for one: it depends on which keys are bound, of which an alert
    has few, and not on how many values.
    """

    def __init__(self, bound: Iterable[tuple[Group, Bound]]) -> None:
        """`bound`: each with what it binds, sorted by key, in the caller's order."""
        self._by_keys: dict[tuple[str, ...], dict[tuple[str, ...], tuple[int, Bound]]] = {}
        for place, (group, item) in enumerate(bound):
            values = self._by_keys.setdefault(tuple(key for key, _ in group), {})
            values.setdefault(tuple(value for _, value in group), (place, item))

    def find(self, group: Group) -> Bound | None:
        """What is bound to a group; None where nothing is."""
        if not self._by_keys:
            return None
        own = dict(group)
        best: tuple[int, int] | None = None
        found: Bound | None = None
        for keys, items in self._by_keys.items():
            if not own.keys() >= set(keys):
                continue
            hit = items.get(tuple(own[key] for key in keys))
            if hit is not None and (best is None or (-len(keys), hit[0]) < best):
                best, found = (-len(keys), hit[0]), hit[1]
        return found
