"""Watching alerts: those that watch the same gauges, with what follows from all of them together.

Thousands of customers can have the same wide alerts. What these have in common is found once, and shared by the
gauges of all of these customers. So a gauge that is far below a thousand alerts costs about as much as one below ten.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from evaluator.alerts import AlertRule
from evaluator.gauges import Group
from evaluator.thresholds import Direction
from evaluator.transitions import AlertState, trip_levels

# Of so many alerts all are evaluated. To find those that a value concerns would cost as much.
FEW_ALERTS = 4

_NO_STATE = AlertState()


class WatchingAlerts:
    """The alerts that watch a gauge. Never changed, so that gauges share it.

    rules: at least one, oldest first. changed_epoch: the latest of theirs. watching_epoch, watching_time: the
    earliest. fanning_out: those with a gauge for each group. perhaps_silent: those that were created without an
    evaluation of what existed.
    """

    __slots__ = (
        "_levels",
        "_newest",
        "changed_epoch",
        "fanning_out",
        "has_percentages",
        "perhaps_silent",
        "rules",
        "watching_epoch",
        "watching_time",
    )

    def __init__(self, rules: Iterable[AlertRule]) -> None:
        self.rules = tuple(rules)
        self.changed_epoch = max(one.changed_epoch for one in self.rules)
        self.watching_epoch = min(one.watching_epoch for one in self.rules)
        self.watching_time = min(one.watching_time for one in self.rules)
        # Most alerts have neither, so that little is asked of each of very many.
        self.has_percentages = any(
            one.has_percentages for one in self.rules if one.overrides or one.thresholds.percentages
        )
        self.fanning_out = tuple(one for one in self.rules if one.groups and one.fans_out)
        self.perhaps_silent = tuple(one for one in self.rules if not one.evaluate_on_create)
        self._levels: _Levels | None = None
        self._newest: tuple[Decimal | None, int] | None = None

    def concerned(self, peak: Decimal, with_state: Collection[str]) -> tuple[Sequence[AlertRule], Decimal | None]:
        """The alerts that have to be evaluated on a gauge of usage, oldest first, and the lowest level of the others.

        peak: the highest of the values that the gauge had and takes. with_state: the ids of alerts that have a state
        on it. The others have no state, and a level above `peak`: their evaluation would find nothing.
        """
        if len(self.rules) < FEW_ALERTS:
            return self.rules, None
        return self._by_level.concerned(peak, with_state)

    def reached_by(self, peak: Decimal) -> int:
        """How many alerts `concerned` finds without states."""
        return len(self.rules) if len(self.rules) < FEW_ALERTS else self._by_level.reached_by(peak)

    @property
    def newest(self) -> tuple[Decimal | None, int]:
        """The lowest level of the alerts that were changed last, and the epoch of the last change of the others.

        A gauge below that level, which was evaluated since that epoch, has nothing to report to any of them. None
        where more than a level decides, as for an alert that was changed since its creation: it may have a state.
        """
        if self._newest is None:
            levels = [_level_of_new(one) for one in self.rules if one.changed_epoch == self.changed_epoch]
            earlier = (one.changed_epoch for one in self.rules if one.changed_epoch != self.changed_epoch)
            lowest = None if None in levels else min(level for level in levels if level is not None)
            self._newest = lowest, max(earlier, default=0)
        return self._newest

    @property
    def _by_level(self) -> "_Levels":
        if self._levels is None:
            self._levels = _Levels(self.rules)
        return self._levels


class _Levels:
    """Alerts in the order of their lowest levels; those for which more than a level decides are apart."""

    __slots__ = ("_always", "_levels", "_ordered", "_places", "_rules")

    def __init__(self, rules: Sequence[AlertRule]) -> None:
        self._rules = rules
        self._always: list[int] = []  # places in `rules`
        levels: list[tuple[Decimal, int]] = []
        for place, rule in enumerate(rules):
            if (level := _lowest_level(rule)) is None:
                self._always.append(place)
            else:
                levels.append((level, place))
        levels.sort()
        self._levels = [level for level, _ in levels]
        self._ordered = [place for _, place in levels]
        self._places = {rule.alert_id: place for place, rule in enumerate(rules)}

    def concerned(self, peak: Decimal, with_state: Collection[str]) -> tuple[Sequence[AlertRule], Decimal | None]:
        """See `WatchingAlerts.concerned`."""
        index = bisect_right(self._levels, peak)
        places = {*self._always, *self._ordered[:index]}
        places.update(self._places[alert_id] for alert_id in with_state if alert_id in self._places)
        while index < len(self._levels) and self._ordered[index] in places:
            index += 1
        following = self._levels[index] if index < len(self._levels) else None
        return [self._rules[place] for place in sorted(places)], following

    def reached_by(self, peak: Decimal) -> int:
        """See `WatchingAlerts.reached_by`."""
        return len(self._always) + bisect_right(self._levels, peak)


def _lowest_level(rule: AlertRule) -> Decimal | None:
    """The level below which an alert without a state has nothing to report; None where more than a level decides."""
    if rule.measure.of_facts or rule.overrides or rule.thresholds.percentages:
        return None
    if rule.thresholds.direction is not Direction.RISING:
        return None
    above, _ = trip_levels(rule.thresholds, _NO_STATE)
    return above


def _level_of_new(rule: AlertRule) -> Decimal | None:
    return None if rule.create_epoch != rule.changed_epoch else _lowest_level(rule)


class SameKeys:
    """The alerts on a measure that have the same group keys. Never changed, so that customers share it.

    rules: at least one, oldest first.
    """

    __slots__ = ("_all", "_selective", "rules")

    def __init__(self, rules: Sequence[AlertRule]) -> None:
        self.rules = rules
        self._selective = any(selector.value is not None for rule in rules for selector in rule.groups)
        self._all: WatchingAlerts | None = None

    def watching(self, group: Group) -> WatchingAlerts | None:
        """The alerts that watch the gauge of a group with these keys; None if there is none."""
        if self._selective:
            selecting = [rule for rule in self.rules if rule.selects(group)]
            return WatchingAlerts(selecting) if selecting else None
        if self._all is None:
            self._all = WatchingAlerts(self.rules)
        return self._all


ByKeys = Mapping[tuple[str, ...], SameKeys]  # by group keys

NO_KEYS: ByKeys = MappingProxyType({})


def by_keys(rules: Iterable[AlertRule]) -> ByKeys:
    """Alerts on one measure by their group keys, oldest first."""
    found: dict[tuple[str, ...], list[AlertRule]] = {}
    for rule in sorted(rules, key=lambda one: (one.create_epoch, one.alert_id)):
        found.setdefault(rule.group_keys, []).append(rule)
    return {keys: SameKeys(alike) for keys, alike in found.items()}
