"""Price filters: which events count for an alert on cost, by the price that their properties name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class PriceField(StrEnum):
    """A field of a price; `property_name` is the property of usage events that carries it."""

    PRICE_ID = "PRICE_ID"
    ITEM_ID = "ITEM_ID"
    PRICE_TYPE = "PRICE_TYPE"

    @property
    def property_name(self) -> str:
        """The property of usage events that carries it."""
        return self.value.lower()


class FilterOperator(StrEnum):
    """Whether matching events are included or excluded."""

    INCLUDES = "INCLUDES"
    EXCLUDES = "EXCLUDES"


@dataclass(frozen=True)
class PriceFilter:
    """Includes, or excludes, the events whose price has one of these values.

    An event without the property is excluded by INCLUDES and included by EXCLUDES.
    """

    field: PriceField
    operator: FilterOperator
    values: tuple[str, ...]

    def passes(self, properties: Mapping[str, str]) -> bool:
        """Whether an event with these properties counts."""
        matches = properties.get(self.field.property_name) in self.values
        return matches is (self.operator is FilterOperator.INCLUDES)


def canonical(filters: Iterable[PriceFilter]) -> tuple[PriceFilter, ...]:
    """The same form for all filters that pass the same prices: at most one for each field, sorted.

    If no price with a field can pass, its filter is an INCLUDES without values.
    """
    included: dict[PriceField, set[str]] = {}
    excluded: dict[PriceField, set[str]] = {}
    for item in filters:
        if item.operator is FilterOperator.EXCLUDES:
            excluded.setdefault(item.field, set()).update(item.values)
        elif item.field in included:
            included[item.field] &= set(item.values)
        else:
            included[item.field] = set(item.values)
    found = []
    for field in sorted(included.keys() | excluded.keys()):
        removed = excluded.get(field, set())
        if field in included:
            kept = included[field] - removed
            found.append(PriceFilter(field, FilterOperator.INCLUDES, tuple(sorted(kept))))
        else:
            found.append(PriceFilter(field, FilterOperator.EXCLUDES, tuple(sorted(removed))))
    return tuple(found)


def passes_all(filters: Iterable[PriceFilter], properties: Mapping[str, str]) -> bool:
    """Whether an event with these properties counts for an alert with these filters."""
    return all(item.passes(properties) for item in filters)
