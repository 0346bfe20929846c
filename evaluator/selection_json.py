"""JSON of what narrows a measure: balance selections, price filters and event filters.

Stored definitions contain it, and so do the keys of measures, which identify stored gauges: the text must not change.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluator.balances import (
    BalanceKind,
    BalanceReading,
    BalanceSelection,
    FieldEntity,
    FieldFilter,
    Specifier,
)
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.raw_events import EventFilter


def balances_json(selection: BalanceSelection) -> dict[str, Any]:
    """A selection of balances, without unset fields."""
    shown: dict[str, Any] = {"kinds": list(selection.kinds), "reading": selection.reading.value}
    if selection.filters:
        shown["filters"] = _fields_json(selection.filters)
    if selection.specifiers:
        shown["specifiers"] = [
            {
                "filters": _fields_json(specifier.filters),
                "excluded": [_fields_json(together) for together in specifier.excluded],
            }
            for specifier in selection.specifiers
        ]
    if selection.grant_types:
        shown["grant_types"] = list(selection.grant_types)
    if selection.seat_key is not None:
        shown["seat_key"] = selection.seat_key
    if selection.license_type is not None:
        shown["license_type"] = selection.license_type
    if selection.any_metric:
        shown["any_metric"] = True
    return shown


def balances_from_json(stored: Mapping[str, Any]) -> BalanceSelection:
    """The inverse of `balances_json`."""
    return BalanceSelection(
        kinds=tuple(BalanceKind(kind) for kind in stored["kinds"]),
        reading=BalanceReading(stored["reading"]),
        filters=_fields_from_json(stored.get("filters", ())),
        specifiers=tuple(
            Specifier(
                _fields_from_json(one["filters"]), tuple(_fields_from_json(together) for together in one["excluded"])
            )
            for one in stored.get("specifiers", ())
        ),
        grant_types=tuple(stored.get("grant_types", ())),
        seat_key=stored.get("seat_key"),
        license_type=stored.get("license_type"),
        any_metric=stored.get("any_metric", False),
    )


def prices_json(filters: Iterable[PriceFilter]) -> list[list[Any]]:
    """Price filters in the given order, each as [field, operator, values]."""
    return [[item.field.value, item.operator.value, list(item.values)] for item in filters]


def prices_from_json(stored: Iterable[Sequence[Any]]) -> tuple[PriceFilter, ...]:
    """The inverse of `prices_json`."""
    return tuple(
        PriceFilter(PriceField(field), FilterOperator(operator), tuple(values)) for field, operator, values in stored
    )


def _fields_json(filters: Iterable[FieldFilter]) -> list[list[str | None]]:
    return [[one.entity.value, one.key, one.value] for one in filters]


def _fields_from_json(stored: Iterable[Sequence[Any]]) -> tuple[FieldFilter, ...]:
    return tuple(FieldFilter(FieldEntity(entity), key, value) for entity, key, value in stored)


def event_filters_json(filters: Iterable[EventFilter]) -> list[dict[str, Any]]:
    """The event filters of a metric."""
    return [{"key": one.key, "operator": one.operator.value, "values": list(one.values)} for one in filters]


def event_filters_from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[EventFilter, ...]:
    """The inverse of `event_filters_json`."""
    return tuple(EventFilter(one["key"], FilterOperator(one["operator"]), tuple(one["values"])) for one in stored)
