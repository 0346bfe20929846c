"""Event filters of metrics: read from requests, with every violation, and written to answers."""

from collections.abc import Iterable, Sequence

from evaluator.prices import FilterOperator
from evaluator.raw_events import EventFilter, canonical
from generated.tidemark.v1 import metric_pb2
from server.calls.validation import Violations
from server.mapping.price_filters import OPERATOR_OF, OPERATORS

MAX_EVENT_FILTERS = 10  # of one metric
MAX_EVENT_FILTER_VALUES = 50  # of one filter
MAX_EVENT_FILTER_VALUE_LENGTH = 256  # characters, as for properties of events


def read_event_filters(
    violations: Violations, path: str, filters: Sequence[metric_pb2.EventFilter]
) -> tuple[EventFilter, ...]:
    """The filters of a metric, in their canonical form."""
    if len(filters) > MAX_EVENT_FILTERS:
        violations.add(path, f"it has {len(filters)} filters; a metric has at most {MAX_EVENT_FILTERS}")
        return ()
    return canonical(_read_filter(violations, f"{path}[{index}]", item) for index, item in enumerate(filters))


def _read_filter(violations: Violations, at: str, item: metric_pb2.EventFilter) -> EventFilter:
    key, operator = violations.identifier(f"{at}.key", item.key), OPERATOR_OF.get(item.operator)
    if operator is None:
        violations.add(f"{at}.operator", f"set one of {', '.join(FilterOperator)}")
    if len(item.values) > MAX_EVENT_FILTER_VALUES:
        violations.add(
            f"{at}.values", f"it has {len(item.values)} values; a filter has at most {MAX_EVENT_FILTER_VALUES}"
        )
    else:
        for index, value in enumerate(item.values):
            violations.text(f"{at}.values[{index}]", value, max_length=MAX_EVENT_FILTER_VALUE_LENGTH)
    return EventFilter(key, operator or FilterOperator.INCLUDES, tuple(item.values))


def event_filter_messages(filters: Iterable[EventFilter]) -> list[metric_pb2.EventFilter]:
    """Filters as answers show them."""
    return [
        metric_pb2.EventFilter(key=item.key, operator=OPERATORS[item.operator], values=item.values)
        for item in filters
    ]
