"""Enforced limits: those that can stop usage, and which of them a usage meets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from evaluator.balances import Unit
from evaluator.gauges import Group
from evaluator.limit_windows import LimitWindow

LimitGroups = tuple[tuple[str, str | None], ...]  # property keys, sorted, each with a value, or None for every value
_Kind = tuple[Unit, tuple[str, ...], LimitWindow]  # what distinguishes limits that apply at the same time


class Enforcement(StrEnum):
    """What a limit does when usage passes it."""

    NONE = "NONE"  # nothing: only thresholds refer to it
    SOFT = "SOFT"  # the answer says so
    HARD = "HARD"  # the usage is not admitted


@dataclass(frozen=True, slots=True)
class EnforcedLimit:
    """One limit. changed_epoch: of the organization, when the limit last changed."""

    limit_id: str
    unit: Unit
    groups: LimitGroups
    window: LimitWindow
    amount: Decimal
    enforcement: Enforcement
    changed_epoch: int

    @property
    def kind(self) -> _Kind:
        """Of the limits of one kind, only the one that fits a usage best applies to it."""
        return self.unit, tuple(key for key, _ in self.groups), self.window

    def fits(self, properties: Mapping[str, str]) -> bool:
        """Whether it applies to usage with these properties."""
        return all(key in properties and value in (None, properties[key]) for key, value in self.groups)

    @property
    def rank(self) -> tuple[int, tuple[bool, ...]]:
        """The lower, the better it fits: those that name most values come first, then by the first keys."""
        named = tuple(value is None for _, value in self.groups)
        return sum(named), named


class EnforcedLimits:
    """The limits of a customer itself, or of a plan, by their kind. Immutable.

    Limits with enforcement NONE are among them: a customer's own one replaces a limit of its plan.
    """

    def __init__(self, limits: Iterable[EnforcedLimit] = ()) -> None:
        self._by_kind: dict[_Kind, list[EnforcedLimit]] = {}
        for limit in limits:
            self._by_kind.setdefault(limit.kind, []).append(limit)
        for of_kind in self._by_kind.values():
            of_kind.sort(key=lambda one: one.rank)
        self.enforces = any(
            one.enforcement is not Enforcement.NONE for of_kind in self._by_kind.values() for one in of_kind
        )

    def kinds(self, unit: Unit) -> Iterator[_Kind]:
        """The kinds of its limits in a unit."""
        return (kind for kind in self._by_kind if kind[0] == unit)

    def best(self, kind: _Kind, properties: Mapping[str, str]) -> EnforcedLimit | None:
        """The limit of this kind that fits the usage best."""
        return next((one for one in self._by_kind.get(kind, ()) if one.fits(properties)), None)


NOTHING_ENFORCED = EnforcedLimits()


@dataclass(frozen=True, slots=True)
class MetLimit:
    """A limit that a usage meets, with the values of its groups."""

    limit: EnforcedLimit
    group: Group


def met_by(
    own: EnforcedLimits, plan: EnforcedLimits, unit: Unit, properties: Mapping[str, str]
) -> Iterator[MetLimit]:
    """The enforced limits that usage in a unit meets: of each kind the customer's own one, or else its plan's."""
    for kind in dict.fromkeys((*own.kinds(unit), *plan.kinds(unit))):
        limit = own.best(kind, properties) or plan.best(kind, properties)
        if limit is not None and limit.enforcement is not Enforcement.NONE:
            yield MetLimit(limit, tuple((key, properties[key]) for key in kind[1]))
