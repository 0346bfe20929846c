"""Balances: what customers were granted, what remains of it, and which balances an alert measures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from evaluator.amounts import ZERO


class BalanceKind(StrEnum):
    """What a balance was granted as."""

    COMMIT = "COMMIT"
    CONTRACT_CREDIT = "CONTRACT_CREDIT"
    CREDIT_GRANT = "CREDIT_GRANT"
    SEAT_CREDIT = "SEAT_CREDIT"
    LICENSE_ALLOTMENT = "LICENSE_ALLOTMENT"


@dataclass(frozen=True)
class Seat:
    """One value of a property of usage events."""

    key: str
    value: str


@dataclass(frozen=True)
class Unit:
    """What a balance is held in: money of a currency, or units of a metric; exactly one is set."""

    currency: str | None = None
    metric_id: str | None = None

    @property
    def key(self) -> str:
        """The unit as text, which the store keeps."""
        return f"cost/{self.currency}" if self.metric_id is None else f"usage/{self.metric_id}"

    @classmethod
    def from_key(cls, key: str) -> "Unit":
        """The unit whose `key` is this text."""
        kind, _, name = key.partition("/")
        return cls(currency=name) if kind == "cost" else cls(metric_id=name)


@dataclass(slots=True)
class HoldingSegment:
    """A part of a balance that is usable from `start` until just before `end` (None: without end).

    granted, drawn: the amount that it began with, and the amount taken from it. A negative adjustment counts as drawn
    where a balance is measured. Where usage draws on it, the adjustment reduces granted instead, because a correction
    of usage must give back only what usage took. held: by open reservations. Alerts do not see it.
    """

    number: int
    granted: Decimal
    drawn: Decimal
    start: datetime
    end: datetime | None
    held: Decimal = ZERO

    @property
    def remaining(self) -> Decimal:
        """What usage can still draw: granted minus drawn and held; negative when overdrawn.

        Must run under `exact_arithmetic`.
        """
        return self.granted - self.drawn - self.held

    @property
    def undrawn(self) -> Decimal:
        """What the ledger says: granted minus drawn, whatever is held. Must run under `exact_arithmetic`."""
        return self.granted - self.drawn

    def covers(self, time: datetime) -> bool:
        """Whether it is active at `time`."""
        return self.start <= time and (self.end is None or time < self.end)


@dataclass(eq=False)
class Holding:
    """A balance of a customer as alerts measure it. segments: empty for a balance that was voided."""

    balance_id: str
    kind: BalanceKind
    unit: Unit
    segments: tuple[HoldingSegment, ...]
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    contract_custom_fields: Mapping[str, str] = field(default_factory=dict)
    credit_grant_type: str | None = None
    seat: Seat | None = None
    license_type: str | None = None

    def active(self, time: datetime) -> Iterator[HoldingSegment]:
        """The segments that are active at `time`."""
        return (segment for segment in self.segments if segment.covers(time))


class FieldEntity(StrEnum):
    """The kind of object whose custom field a filter compares."""

    CONTRACT = "CONTRACT"
    COMMIT = "COMMIT"
    CONTRACT_CREDIT = "CONTRACT_CREDIT"
    CONTRACT_CREDIT_OR_COMMIT = "CONTRACT_CREDIT_OR_COMMIT"


# A seat credit is a contract credit for one seat.
_KINDS_OF: Mapping[FieldEntity, tuple[BalanceKind, ...]] = {
    FieldEntity.COMMIT: (BalanceKind.COMMIT,),
    FieldEntity.CONTRACT_CREDIT: (BalanceKind.CONTRACT_CREDIT, BalanceKind.SEAT_CREDIT),
    FieldEntity.CONTRACT_CREDIT_OR_COMMIT: (BalanceKind.COMMIT, BalanceKind.CONTRACT_CREDIT, BalanceKind.SEAT_CREDIT),
}


@dataclass(frozen=True, order=True)
class FieldFilter:
    """A custom field that a balance must have, with this value or with any value (None)."""

    entity: FieldEntity
    key: str
    value: str | None = None

    def value_of(self, holding: Holding) -> str | None:
        """The balance's value of the field; None if it has no such field or is of another kind."""
        if self.entity is FieldEntity.CONTRACT:
            return holding.contract_custom_fields.get(self.key)
        return holding.custom_fields.get(self.key) if holding.kind in _KINDS_OF[self.entity] else None

    def matches(self, holding: Holding) -> bool:
        """Whether the balance has the field, with the value if the filter has one."""
        found = self.value_of(holding)
        return found is not None and self.value in (None, found)


@dataclass(frozen=True, order=True)
class Specifier:
    """Selects the balances that match all filters and none of the exclusions.

    filters: one without a value divides the balances by their values, with a gauge for each value. excluded: lists of
    filters; a balance that matches all filters of one list is not selected.
    """

    filters: tuple[FieldFilter, ...] = ()
    excluded: tuple[tuple[FieldFilter, ...], ...] = ()

    def takes(self, holding: Holding) -> bool:
        """Whether the balance is selected."""
        return all(one.matches(holding) for one in self.filters) and not any(
            all(one.matches(holding) for one in together) for together in self.excluded
        )


class BalanceReading(StrEnum):
    """What is measured of the selected balances."""

    REMAINING = "REMAINING"  # in their unit
    REMAINING_PERCENT = "REMAINING_PERCENT"  # of what was granted
    USED_PERCENT = "USED_PERCENT"  # of what was granted, each balance by itself
    DAYS_LEFT = "DAYS_LEFT"  # until the end of each segment, each by itself

    @property
    def is_percent(self) -> bool:
        """Whether it is a percentage of what was granted."""
        return self in (BalanceReading.REMAINING_PERCENT, BalanceReading.USED_PERCENT)


@dataclass(frozen=True)
class BalanceSelection:
    """Which balances an alert measures, and what it measures of them.

    filters: all must match. specifiers: at least one must select the balance; empty: all balances. grant_types: of
    credit grants; empty: all. seat_key: of seat credits, which have one gauge for each seat. license_type: of
    allotments. any_metric: only balances in units of a metric, whichever it is; their amounts are added up.
    """

    kinds: tuple[BalanceKind, ...]
    reading: BalanceReading
    filters: tuple[FieldFilter, ...] = ()
    specifiers: tuple[Specifier, ...] = ()
    grant_types: tuple[str, ...] = ()
    seat_key: str | None = None
    license_type: str | None = None
    any_metric: bool = False

    def takes(self, holding: Holding) -> bool:
        """Whether the balance is selected; its unit is not compared with the measure's."""
        return (
            holding.kind in self.kinds
            and (not self.any_metric or holding.unit.metric_id is not None)
            and (self.seat_key is None or (holding.seat is not None and holding.seat.key == self.seat_key))
            and self.license_type in (None, holding.license_type)
            and (not self.grant_types or holding.credit_grant_type in self.grant_types)
            and all(one.matches(holding) for one in self.filters)
            and (not self.specifiers or any(one.takes(holding) for one in self.specifiers))
        )
