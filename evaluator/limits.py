"""Limits: how much a customer may use or spend, and which limit applies to a gauge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from evaluator.balances import Unit
from evaluator.enforced_limits import LimitGroups
from evaluator.gauges import Group


@dataclass(frozen=True)
class LimitChange:
    """One limit as it was last set; amount: None if it was removed. changed_epoch: the organization's, then."""

    unit: Unit
    groups: LimitGroups
    amount: Decimal | None
    changed_epoch: int


class Limits:
    """The limits of a customer, or those of a plan for each of its customers. Immutable.

    changed_epoch: the organization's epoch at their last change; 0 without any.
    """

    def __init__(self, changes: Iterable[LimitChange] = (), before: "Limits | None" = None) -> None:
        """`before`: the limits to which the changes are applied; None: no limits."""
        self._amounts: dict[tuple[Unit, LimitGroups], Decimal] = dict(before._amounts) if before else {}
        self.changed_epoch: int = before.changed_epoch if before else 0
        for change in changes:
            self.changed_epoch = max(self.changed_epoch, change.changed_epoch)
            if change.amount is None:
                self._amounts.pop((change.unit, change.groups), None)
            else:
                self._amounts[change.unit, change.groups] = change.amount

    def find(self, unit: Unit | None, group: Group) -> Decimal | None:
        """The limit for a gauge with that unit and group; None without one.

        A limit must have exactly the property keys of the group. Of several, the one that names most values is taken.
        """
        if unit is None or not self._amounts:
            return None
        return next((self._amounts[unit, fit] for fit in _fitting(group) if (unit, fit) in self._amounts), None)


NO_LIMITS = Limits()


def limit_of(applicable: Iterable[Limits], unit: Unit | None, group: Group) -> Decimal | None:
    """The effective limit of a gauge: from the first of the applicable limits that has one."""
    found = (limits.find(unit, group) for limits in applicable)
    return next((amount for amount in found if amount is not None), None)


def _fitting(group: Group) -> Iterator[LimitGroups]:
    """The groups of limits that match a gauge's group: those that name most values first, then by the first keys."""
    for number in range(len(group), -1, -1):
        for named in combinations(range(len(group)), number):
            yield tuple((key, value if index in named else None) for index, (key, value) in enumerate(group))
