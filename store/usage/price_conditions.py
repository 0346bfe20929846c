"""Price filters as SQL conditions on rows of `event`, with the same meaning as `evaluator.prices`."""

from collections.abc import Sequence
from typing import Any

from evaluator.prices import FilterOperator, PriceFilter


def condition(prices: Sequence[PriceFilter]) -> str:
    """A condition that events `e` meet if they pass all filters. `parameters` has its values."""
    conditions = []
    for number, item in enumerate(prices):
        own = f"e.properties ->> %(price_field{number})s::text"
        values = f"%(price_values{number})s::text[]"
        if item.operator is FilterOperator.INCLUDES:
            conditions.append(f"{own} = ANY({values})")
        else:
            # An event without the field passes: the comparison is then null.
            conditions.append(f"coalesce({own} <> ALL({values}), true)")
    return " AND ".join(conditions) or "true"


def parameters(prices: Sequence[PriceFilter]) -> dict[str, Any]:
    """The parameters of `condition`."""
    found: dict[str, Any] = {}
    for number, item in enumerate(prices):
        found[f"price_field{number}"] = item.field.property_name
        found[f"price_values{number}"] = list(item.values)
    return found
