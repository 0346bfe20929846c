"""Targets: the meters that usage of a customer moves, with the limits that are compared with them.

They are found once for each kind of usage (customer, subscription, metric, currency, values of group keys) and kept,
because finding them takes longer than a decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from evaluator.aggregation import Aggregation
from evaluator.balances import Unit
from evaluator.enforced_limits import ALWAYS, EnforcedLimit, EnforcedLimits, Since, met_by
from evaluator.enforcement.meters import Meter, MeterCell
from evaluator.gauges import Group
from evaluator.periods import BillingCycle, Period

_ALWAYS = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Holder:
    """A customer, or a subscription of it, whose limits usage meets.

    own: its own limits; plan: those of its plan. level: 0 for the customer of the usage and its subscription, 1 for
    the customer's parent and so on. since: when its facts, and the customers below it, last changed.
    """

    customer_id: str
    subscription_id: str | None
    own: EnforcedLimits
    plan: EnforcedLimits
    cycle: BillingCycle
    level: int
    since: Since = ALWAYS

    def group_keys(self, unit: Unit) -> set[str]:
        """The properties on whose values it depends which of its limits in a unit apply."""
        return {key for limits in (self.own, self.plan) for kind in limits.kinds(unit) for key in kind[1]}


@dataclass(eq=False, slots=True)
class Target:
    """A limit that usage meets, and the meter that the usage moves, one after the other in time.

    of_cost: the cost moves it, and not the quantity. since: from then on all usage that meets the limit has moved its
    meter; a meter that was last moved before has to be counted anew.
    """

    holder: Holder
    limit: EnforcedLimit
    group: Group
    of_cost: bool
    since: Since
    _meter: Meter | None = None
    _start: datetime = _ALWAYS[1]
    _end: datetime = _ALWAYS[0]

    def meter_at(self, time: datetime) -> Meter:
        """The meter that usage at `time` moves."""
        if self._meter is None or not self._start <= time < self._end:
            self._meter, self._start, self._end = self._find(time)
        return self._meter

    def _find(self, time: datetime) -> tuple[Meter, datetime, datetime]:
        holder, limit = self.holder, self.limit
        span: Period | None = None
        start, end = _ALWAYS
        if not limit.window.is_rolling:
            span = limit.window.span_at(time, holder.cycle)
            start, end = span.start, span.end
        meter = Meter(holder.customer_id, holder.subscription_id, limit.unit, self.group, limit.window, span)
        return meter, start, end


class Charge(NamedTuple):
    """What a usage takes of one target. cell: the meter in its transaction."""

    target: Target
    cell: MeterCell
    amount: Decimal


@dataclass(eq=False, slots=True)
class Kept:
    """How many sets of targets are kept, of all kinds of usage together."""

    number: int = 0


@dataclass(eq=False, slots=True)
class UsageTargets:
    """The targets of one kind of usage, by the values of the properties that decide about them.

    aggregation: of its metric. since: when raw events began to count in the metric.
    """

    aggregation: Aggregation
    units: Sequence[Unit]
    holders: Sequence[Holder]
    kept: Kept
    since: Since = ALWAYS
    _keys: tuple[str, ...] = ()
    _found: dict[tuple[str | None, ...], Sequence[Target]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Finds the properties that decide."""
        keys = {key for holder in self.holders for unit in self.units for key in holder.group_keys(unit)}
        self._keys = tuple(sorted(keys))

    def of(self, properties: Mapping[str, str]) -> Sequence[Target]:
        """The targets of usage with these properties."""
        values = tuple([properties.get(key) for key in self._keys]) if self._keys else ()
        found = self._found.get(values)
        if found is None:
            found = self._found[values] = self._find(properties)
            self.kept.number += 1
        return found

    def _find(self, properties: Mapping[str, str]) -> Sequence[Target]:
        return [
            Target(
                holder,
                met.limit,
                met.group,
                unit.currency is not None,
                holder.since.latest(met.since, self.since if unit.currency is None else ALWAYS),
            )
            for holder in self.holders
            for unit in self.units
            for met in met_by(holder.own, holder.plan, unit, properties)
        ]
