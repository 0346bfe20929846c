"""The events of a metric as SQL conditions on rows of `event`, with the same meaning as `evaluator.raw_events`."""

from typing import Any

from evaluator.amounts import MAX_DECIMALS, MAX_DIGITS
from evaluator.prices import FilterOperator
from evaluator.raw_events import EventFilter, RawEvents

_PROPERTY = "e.properties ->> %(quantity_property)s::text"
# What `parse_decimal` accepts.
_IS_DECIMAL = (
    f"{_PROPERTY} ~ '^-?[0-9]+([.][0-9]{{1,{MAX_DECIMALS}}})?$'"
    f" AND length(translate({_PROPERTY}, '-.', '')) <= {MAX_DIGITS}"
)


def condition(metric_id: str, raw_events: RawEvents | None) -> str:
    """A condition that the events `e` of a metric meet. metric_id: an SQL expression. `parameters` has its values."""
    of_metric = f"e.metric_id = {metric_id}"
    if raw_events is None:
        return of_metric
    conditions = ["e.event_name = %(event_name)s::text"]
    conditions += [_passes(number, one) for number, one in enumerate(raw_events.filters)]
    if raw_events.quantity_property is not None:
        conditions.append(_IS_DECIMAL)
    return f"({of_metric} OR {' AND '.join(conditions)})"


def amount(raw_events: RawEvents | None) -> str:
    """The amount that an event `e` of a metric has there. `parameters` has its values."""
    if raw_events is None or raw_events.quantity_property is None:
        return "e.quantity"
    return f"CASE WHEN e.event_name IS NULL THEN e.quantity ELSE ({_PROPERTY})::numeric END"


def parameters(raw_events: RawEvents | None) -> dict[str, Any]:
    """The parameters of `condition` and `amount`."""
    if raw_events is None:
        return {}
    found: dict[str, Any] = {
        "event_name": raw_events.event_name,
        "quantity_property": raw_events.quantity_property,
    }
    for number, one in enumerate(raw_events.filters):
        found[f"event_key{number}"] = one.key
        found[f"event_values{number}"] = list(one.values)
    return found


def _passes(number: int, one: EventFilter) -> str:
    key, values = f"%(event_key{number})s::text", f"%(event_values{number})s::text[]"
    matches = f"e.properties ->> {key} = ANY({values})" if one.values else f"e.properties ? {key}"
    if one.operator is FilterOperator.INCLUDES:
        return matches
    # An event without the property passes: the comparison is then null.
    return f"NOT coalesce({matches}, false)"
