"""Enforced limits: those that can stop usage, and which of them a usage meets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from evaluator.balances import Unit
from evaluator.gauges import Group
from evaluator.limit_windows import LimitWindow

LimitGroups = tuple[tuple[str, str | None], ...]  # property keys, sorted, each with a value, or None for every value
Kind = tuple[Unit, tuple[str, ...], LimitWindow]  # what distinguishes limits that apply at the same time


class Enforcement(StrEnum):
    """What a limit does when usage passes it."""

    NONE = "NONE"  # nothing: only thresholds refer to it
    SOFT = "SOFT"  # the answer says so
    HARD = "HARD"  # the usage is not admitted


class Since(NamedTuple):
    """Since when usage has been counted without a gap: the organization's epoch of the last change, and its time.

    A change of an amount, or from SOFT to HARD, makes no gap: the same usage is counted before and after it.
    """

    epoch: int
    time: datetime

    def latest(self, *others: "Since") -> "Since":
        """The latest of several, each of its parts by itself."""
        return Since(max(self.epoch, *[one.epoch for one in others]), max(self.time, *[one.time for one in others]))


ALWAYS = Since(0, datetime.min.replace(tzinfo=UTC))


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
    def kind(self) -> Kind:
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

    def __init__(self, limits: Iterable[EnforcedLimit] = (), since: Mapping[Kind, Since] | None = None) -> None:
        """`since`: by kind, also of limits that are gone; without it, they have always stood."""
        self._since = since or {}
        self._by_kind: dict[Kind, list[EnforcedLimit]] = {}
        for limit in limits:
            self._by_kind.setdefault(limit.kind, []).append(limit)
        for of_kind in self._by_kind.values():
            of_kind.sort(key=lambda one: one.rank)
        self.enforces = any(
            one.enforcement is not Enforcement.NONE for of_kind in self._by_kind.values() for one in of_kind
        )

    def kinds(self, unit: Unit) -> Iterator[Kind]:
        """The kinds of its limits in a unit."""
        return (kind for kind in self._by_kind if kind[0] == unit)

    def since(self, kind: Kind) -> Since:
        """Since when the limits of this kind have been counted: none of them began or ended to be enforced."""
        return self._since.get(kind, ALWAYS)

    def best(self, kind: Kind, properties: Mapping[str, str]) -> EnforcedLimit | None:
        """The limit of this kind that fits the usage best."""
        return next((one for one in self._by_kind.get(kind, ()) if one.fits(properties)), None)


NOTHING_ENFORCED = EnforcedLimits()


@dataclass(frozen=True, slots=True)
class MetLimit:
    """A limit that a usage meets, with the values of its groups. since: see `EnforcedLimits.since`."""

    limit: EnforcedLimit
    group: Group
    since: Since


def met_by(
    own: EnforcedLimits, plan: EnforcedLimits, unit: Unit, properties: Mapping[str, str]
) -> Iterator[MetLimit]:
    """The enforced limits that usage in a unit meets: of each kind the customer's own one, or else its plan's."""
    for kind in dict.fromkeys((*own.kinds(unit), *plan.kinds(unit))):
        limit = own.best(kind, properties) or plan.best(kind, properties)
        if limit is not None and limit.enforcement is not Enforcement.NONE:
            group = tuple((key, properties[key]) for key in kind[1])
            yield MetLimit(limit, group, own.since(kind).latest(plan.since(kind)))
