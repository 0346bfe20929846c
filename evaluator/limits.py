"""Limits: how much a customer may use or spend, and which limit applies to a gauge."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import combinations

from evaluator.balances import Unit
from evaluator.enforced_limits import (
    ALWAYS,
    NOTHING_ENFORCED,
    EnforcedLimit,
    EnforcedLimits,
    Enforcement,
    Kind,
    LimitGroups,
    Since,
)
from evaluator.gauges import Group
from evaluator.limit_windows import BILLING_PERIOD, LimitWindow


@dataclass(frozen=True)
class LimitChange:
    """One limit as it was last set; amount: None if it was removed. changed_epoch: the organization's, then.

    enforced_since: when it last began or ended to be enforced, to count nothing, or to exist.
    """

    unit: Unit
    groups: LimitGroups
    amount: Decimal | None
    changed_epoch: int
    window: LimitWindow = BILLING_PERIOD
    enforcement: Enforcement = Enforcement.NONE
    limit_id: str = ""
    enforced_since: Since = ALWAYS

    @property
    def kind(self) -> Kind:
        """As `EnforcedLimit.kind`."""
        return self.unit, tuple(key for key, _ in self.groups), self.window


class Limits:
    """The limits of a customer, or those of a plan for each of its customers. Immutable.

    changed_epoch: the organization's epoch at the last change of limits of the billing period, with which gauges are
    compared; 0 without any.
    """

    def __init__(self, changes: Iterable[LimitChange] = (), before: "Limits | None" = None) -> None:
        """`before`: the limits to which the changes are applied; None: no limits."""
        self._amounts: dict[tuple[Unit, LimitGroups], Decimal] = dict(before._amounts) if before else {}
        self._all: dict[tuple[Unit, LimitGroups, LimitWindow], EnforcedLimit] = dict(before._all) if before else {}
        self.changed_epoch: int = before.changed_epoch if before else 0
        self._since: dict[Kind, Since] = dict(before._since) if before else {}
        for change in changes:
            self._apply(change)

    def _apply(self, change: LimitChange) -> None:
        unit, groups, amount = change.unit, change.groups, change.amount
        self._since[change.kind] = change.enforced_since.latest(self._since.get(change.kind, ALWAYS))
        if change.window == BILLING_PERIOD:
            self.changed_epoch = max(self.changed_epoch, change.changed_epoch)
            if amount is None:
                self._amounts.pop((unit, groups), None)
            else:
                self._amounts[unit, groups] = amount
        if amount is None:
            self._all.pop((unit, groups, change.window), None)
        else:
            self._all[unit, groups, change.window] = EnforcedLimit(
                change.limit_id, unit, groups, change.window, amount, change.enforcement, change.changed_epoch
            )

    @cached_property
    def enforces(self) -> bool:
        """Whether any of them has an enforcement."""
        return any(limit.enforcement is not Enforcement.NONE for limit in self._all.values())

    @cached_property
    def enforced(self) -> EnforcedLimits:
        """All of them as decisions need them, also those without an enforcement, which replace those of a plan."""
        return EnforcedLimits(self._all.values(), self._since) if self._since else NOTHING_ENFORCED

    def find(self, unit: Unit | None, group: Group) -> Decimal | None:
        """The limit of the billing period for a gauge with that unit and group; None without one.

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
