"""Overrides: thresholds of single groups of an alert, and which override applies to a group."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from evaluator.gauges import Group
from evaluator.thresholds import Threshold

MAX_OVERRIDES = 1_000  # of one alert

Bound = TypeVar("Bound")


@dataclass(frozen=True)
class Override:
    """The thresholds of the groups with these values of these keys; none: those groups never notify.

    bound: keys and values in the caller's order; the alert's other keys may have any value.
    """

    bound: Group
    thresholds: tuple[Threshold, ...]

    @property
    def binding(self) -> Group:
        """`bound`, sorted by key."""
        return tuple(sorted(self.bound))


@dataclass(frozen=True)
class RetiredThreshold:
    """A threshold of a former version of an alert. bound: of its override; empty for the alert's own thresholds."""

    threshold: Threshold
    bound: Group = ()

    def was_of(self, group: Group) -> bool:
        """Whether it may have been a threshold of that group's gauge."""
        return not self.bound or set(self.bound) <= set(group)


class MostSpecific(Generic[Bound]):
    """Items that are bound to groups; of several that match a group, the one that binds most keys, then the first.

    The cost of `find` depends on the number of different sets of keys, of which an alert has few, and not on the
    number of items.
    """

    def __init__(self, bound: Iterable[tuple[Group, Bound]]) -> None:
        """`bound`: items in the caller's order, each after the keys and values that it binds, sorted by key."""
        self._by_keys: dict[tuple[str, ...], dict[tuple[str, ...], tuple[int, Bound]]] = {}
        for index, (group, item) in enumerate(bound):
            values = self._by_keys.setdefault(tuple(key for key, _ in group), {})
            values.setdefault(tuple(value for _, value in group), (index, item))

    def find(self, group: Group) -> Bound | None:
        """The item for a group; None when no item matches."""
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
