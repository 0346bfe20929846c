"""Limits: how much a customer may use or spend, and which of them is the limit of a gauge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from evaluator.balances import Unit
from evaluator.gauges import Group

LimitGroups = tuple[tuple[str, str | None], ...]  # properties, sorted, each with a value or with None for each value


@dataclass(frozen=True)
class Limit:
    """One limit as it is since an epoch of the organization; amount: None where there is none any more."""

    unit: Unit
    groups: LimitGroups
    amount: Decimal | None
    changed_epoch: int


class Limits:
    """The limits of one holder: a customer, or each customer of a plan. They do not change.

    changed_epoch: of the organization, at their last change; 0 if there never was one.
    """

    def __init__(self, limits: Iterable[Limit] = (), before: "Limits | None" = None) -> None:
        """`before`: what these limits are a change of."""
        self._amounts: dict[tuple[Unit, LimitGroups], Decimal] = dict(before._amounts) if before else {}
        self.changed_epoch: int = before.changed_epoch if before else 0
        for limit in limits:
            self.changed_epoch = max(self.changed_epoch, limit.changed_epoch)
            if limit.amount is None:
                self._amounts.pop((limit.unit, limit.groups), None)
            else:
                self._amounts[limit.unit, limit.groups] = limit.amount

    def find(self, unit: Unit | None, group: Group) -> Decimal | None:
        """The limit of what a gauge measures: of that unit, divided by exactly its properties.

        Of several the one that names most of their values. None where the holder has none.
        """
        if unit is None or not self._amounts:
            return None
        return next((self._amounts[unit, fit] for fit in _fitting(group) if (unit, fit) in self._amounts), None)


NO_LIMITS = Limits()


def limit_of(holders: Iterable[Limits], unit: Unit | None, group: Group) -> Decimal | None:
    """The limit of a gauge: that of the first of its holders that has one."""
    found = (limits.find(unit, group) for limits in holders)
    return next((amount for amount in found if amount is not None), None)


def _fitting(group: Group) -> Iterator[LimitGroups]:
    """The groups of limits that take a gauge's, those with most values first, then by the first properties."""
    for number in range(len(group), -1, -1):
        for named in combinations(range(len(group)), number):
            yield tuple((key, value if place in named else None) for place, (key, value) in enumerate(group))
