"""Balances: what customers were granted, what remains of it, and which of it an alert looks at."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


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
class Segment:
    """A part of a balance that is there from `start` to before `end` (None: for good).

    granted, drawn: what it has given and what was taken of it; what adjustments took counts as drawn to readings,
    and as not granted to drawing, which gives back only what usage took.
    """

    number: int
    granted: Decimal
    drawn: Decimal
    start: datetime
    end: datetime | None

    @property
    def remaining(self) -> Decimal:
        """What it still has; negative where more was taken than granted. Must run under `exact_arithmetic`."""
        return self.granted - self.drawn

    def covers(self, time: datetime) -> bool:
        """Whether it is there at `time`."""
        return self.start <= time and (self.end is None or time < self.end)


@dataclass(eq=False)
class Holding:
    """A balance of a customer as alerts see it. segments: those that count; none of a balance that was voided."""

    balance_id: str
    kind: BalanceKind
    unit: Unit
    segments: tuple[Segment, ...]
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    contract_custom_fields: Mapping[str, str] = field(default_factory=dict)
    credit_grant_type: str | None = None
    seat: Seat | None = None
    license_type: str | None = None

    def active(self, time: datetime) -> Iterator[Segment]:
        """The segments that are there at `time`."""
        return (segment for segment in self.segments if segment.covers(time))


class FieldEntity(StrEnum):
    """Whose custom field a filter looks at."""

    CONTRACT = "CONTRACT"
    COMMIT = "COMMIT"
    CONTRACT_CREDIT = "CONTRACT_CREDIT"
    CONTRACT_CREDIT_OR_COMMIT = "CONTRACT_CREDIT_OR_COMMIT"


_KINDS_OF: Mapping[FieldEntity, tuple[BalanceKind, ...]] = {
    FieldEntity.COMMIT: (BalanceKind.COMMIT,),
    FieldEntity.CONTRACT_CREDIT: (BalanceKind.CONTRACT_CREDIT,),
    FieldEntity.CONTRACT_CREDIT_OR_COMMIT: (BalanceKind.COMMIT, BalanceKind.CONTRACT_CREDIT),
}


@dataclass(frozen=True, order=True)
class FieldFilter:
    """A custom field that a balance has to have, with this value, or with any (None)."""

    entity: FieldEntity
    key: str
    value: str | None = None

    def value_of(self, holding: Holding) -> str | None:
        """The balance's value of the field; None where it has none, or is not what the filter is about."""
        if self.entity is FieldEntity.CONTRACT:
            return holding.contract_custom_fields.get(self.key)
        return holding.custom_fields.get(self.key) if holding.kind in _KINDS_OF[self.entity] else None

    def matches(self, holding: Holding) -> bool:
        """Whether the balance has the field, with the value if one is asked for."""
        found = self.value_of(holding)
        return found is not None and self.value in (None, found)


@dataclass(frozen=True, order=True)
class Specifier:
    """Takes in the balances that match all filters and none of the exclusions.

    filters: one without a value divides, each value that is seen on gauges of its own. excluded: each a list of
    filters that together leave a balance out.
    """

    filters: tuple[FieldFilter, ...] = ()
    excluded: tuple[tuple[FieldFilter, ...], ...] = ()

    def takes(self, holding: Holding) -> bool:
        """Whether the balance is among those it takes in."""
        return all(one.matches(holding) for one in self.filters) and not any(
            all(one.matches(holding) for one in together) for together in self.excluded
        )


class BalanceReading(StrEnum):
    """What is read of the balances that are selected."""

    REMAINING = "REMAINING"  # in their unit
    REMAINING_PERCENT = "REMAINING_PERCENT"  # of what was granted
    USED_PERCENT = "USED_PERCENT"  # of what was granted, each balance on its own
    DAYS_LEFT = "DAYS_LEFT"  # to the end of each segment, each on its own

    @property
    def is_percent(self) -> bool:
        """Whether it is a part of what was granted."""
        return self in (BalanceReading.REMAINING_PERCENT, BalanceReading.USED_PERCENT)


@dataclass(frozen=True)
class BalanceSelection:
    """Which balances an alert looks at, and what it reads of them.

    filters: all have to match. specifiers: any has to take the balance in; empty: all balances. grant_types: of
    credit grants; empty: all. seat_key: of seat credits, which are read seat by seat. license_type: of allotments.
    """

    kinds: tuple[BalanceKind, ...]
    reading: BalanceReading
    filters: tuple[FieldFilter, ...] = ()
    specifiers: tuple[Specifier, ...] = ()
    grant_types: tuple[str, ...] = ()
    seat_key: str | None = None
    license_type: str | None = None

    def takes(self, holding: Holding) -> bool:
        """Whether the balance is among those selected, whatever its unit."""
        return (
            holding.kind in self.kinds
            and (self.seat_key is None or (holding.seat is not None and holding.seat.key == self.seat_key))
            and self.license_type in (None, holding.license_type)
            and (not self.grant_types or holding.credit_grant_type in self.grant_types)
            and all(one.matches(holding) for one in self.filters)
            and (not self.specifiers or any(one.takes(holding) for one in self.specifiers))
        )


def selection_json(selection: BalanceSelection) -> dict[str, Any]:
    """A selection of balances, without what is unset."""
    shown: dict[str, Any] = {"kinds": list(selection.kinds), "reading": selection.reading.value}
    if selection.filters:
        shown["filters"] = [_filter_json(one) for one in selection.filters]
    if selection.specifiers:
        shown["specifiers"] = [
            {
                "filters": [_filter_json(one) for one in specifier.filters],
                "excluded": [[_filter_json(one) for one in together] for together in specifier.excluded],
            }
            for specifier in selection.specifiers
        ]
    if selection.grant_types:
        shown["grant_types"] = list(selection.grant_types)
    if selection.seat_key is not None:
        shown["seat_key"] = selection.seat_key
    if selection.license_type is not None:
        shown["license_type"] = selection.license_type
    return shown


def selection_from_json(stored: Mapping[str, Any]) -> BalanceSelection:
    """The selection of which `selection_json` made this."""
    return BalanceSelection(
        kinds=tuple(BalanceKind(kind) for kind in stored["kinds"]),
        reading=BalanceReading(stored["reading"]),
        filters=_filters(stored.get("filters", ())),
        specifiers=tuple(
            Specifier(_filters(one["filters"]), tuple(_filters(together) for together in one["excluded"]))
            for one in stored.get("specifiers", ())
        ),
        grant_types=tuple(stored.get("grant_types", ())),
        seat_key=stored.get("seat_key"),
        license_type=stored.get("license_type"),
    )


def _filter_json(one: FieldFilter) -> list[str | None]:
    return [one.entity.value, one.key, one.value]


def _filters(stored: Iterable[Sequence[Any]]) -> tuple[FieldFilter, ...]:
    return tuple(FieldFilter(FieldEntity(entity), key, value) for entity, key, value in stored)
