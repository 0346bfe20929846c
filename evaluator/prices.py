"""Prices: which usage events' costs an alert takes in, by what the events say of the price that rated them."""

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
        """The property of usage events that says it."""
        return self.value.lower()


class FilterOperator(StrEnum):
    """Whether a match takes a price in or leaves it out."""

    INCLUDES = "INCLUDES"
    EXCLUDES = "EXCLUDES"


@dataclass(frozen=True)
class PriceFilter:
    """Takes in the events whose price has one of these values, or leaves them out.

    An event that does not name the field is left out by INCLUDES and taken in by EXCLUDES.
    """

    field: PriceField
    operator: FilterOperator
    values: tuple[str, ...]

    def passes(self, properties: Mapping[str, str]) -> bool:
        """Whether an event with these properties counts."""
        matches = properties.get(self.field.property_name) in self.values
        return matches is (self.operator is FilterOperator.INCLUDES)


def canonical(filters: Iterable[PriceFilter]) -> tuple[PriceFilter, ...]:
    """The one form of all filters that pass the same prices: at most one for each field, sorted.

    An INCLUDES without values is left where no price that has the field can pass.
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
        left_out = excluded.get(field, set())
        if field in included:
            taken_in = included[field] - left_out
            found.append(PriceFilter(field, FilterOperator.INCLUDES, tuple(sorted(taken_in))))
        else:
            found.append(PriceFilter(field, FilterOperator.EXCLUDES, tuple(sorted(left_out))))
    return tuple(found)


def passes_all(filters: Iterable[PriceFilter], properties: Mapping[str, str]) -> bool:
    """Whether an event with these properties counts for an alert with these filters."""
    return all(item.passes(properties) for item in filters)
