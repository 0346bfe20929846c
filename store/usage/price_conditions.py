"""Price filters as conditions on rows of `event`: what `evaluator.prices` says of one event, said of many."""

from collections.abc import Sequence
from typing import Any

from evaluator.prices import FilterOperator, PriceFilter


def condition(prices: Sequence[PriceFilter]) -> str:
    """Which events `e` pass all of the filters; the values are in `parameters`."""
    conditions = []
    for number, item in enumerate(prices):
        own = f"e.properties ->> %(price_field{number})s::text"
        values = f"%(price_values{number})s::text[]"
        if item.operator is FilterOperator.INCLUDES:
            conditions.append(f"{own} = ANY({values})")
        else:
            # An event without the field, for which the comparison is null, passes.
            conditions.append(f"coalesce({own} <> ALL({values}), true)")
    return " AND ".join(conditions) or "true"


def parameters(prices: Sequence[PriceFilter]) -> dict[str, Any]:
    """The parameters that `condition` names."""
    found: dict[str, Any] = {}
    for number, item in enumerate(prices):
        found[f"price_field{number}"] = item.field.property_name
        found[f"price_values{number}"] = list(item.values)
    return found
