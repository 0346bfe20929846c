"""Price filters: read from requests, with every violation, and written to answers."""

from collections.abc import Iterable, Mapping, Sequence

from evaluator.prices import FilterOperator, PriceField, PriceFilter, canonical
from generated.tidemark.v1 import (
    filter_pb2,
)
from server.calls.validation import Violations

MAX_PRICE_FILTERS = 10  # of one alert
MAX_PRICE_VALUES = 50  # of one alert, over all its filters
MAX_PRICE_VALUES_BYTES = 6_000  # UTF-8, over all filters; every notification contains them
MAX_PRICE_VALUE_LENGTH = 256  # characters, as for properties of events

_FIELDS: Mapping[PriceField, filter_pb2.PriceField.ValueType] = {
    field: filter_pb2.PriceField.Value(f"PRICE_FIELD_{field}") for field in PriceField
}
OPERATORS: Mapping[FilterOperator, filter_pb2.FilterOperator.ValueType] = {
    operator: filter_pb2.FilterOperator.Value(f"FILTER_OPERATOR_{operator}") for operator in FilterOperator
}
_FIELD_OF = {number: field for field, number in _FIELDS.items()}
OPERATOR_OF = {number: operator for operator, number in OPERATORS.items()}


def read_price_filters(
    violations: Violations, path: str, filters: Sequence[filter_pb2.PriceFilter]
) -> tuple[PriceFilter, ...]:
    """The filters of an alert, in their canonical form."""
    before = len(violations.found)
    _check_size(violations, path, filters)
    if len(violations.found) > before:
        return ()
    read = []
    for index, item in enumerate(filters):
        one = _read_filter(violations, f"{path}[{index}]", item)
        if one is not None:
            read.append(one)
    merged = canonical(read)
    if len(violations.found) == before:
        for one in merged:
            if not one.values:
                violations.add(path, f"no {one.field} passes all of them, so the alert could never be reached")
    return merged


def _check_size(violations: Violations, path: str, filters: Sequence[filter_pb2.PriceFilter]) -> None:
    if len(filters) > MAX_PRICE_FILTERS:
        violations.add(path, f"it has {len(filters)} filters; an alert has at most {MAX_PRICE_FILTERS}")
    values = [value for item in filters for value in item.values]
    size = sum(len(value.encode()) for value in values)
    if len(values) > MAX_PRICE_VALUES or size > MAX_PRICE_VALUES_BYTES:
        violations.add(
            path,
            f"its filters have {len(values)} values of {size} bytes; an alert has at most {MAX_PRICE_VALUES}"
            f" of {MAX_PRICE_VALUES_BYTES} bytes in all",
        )


def _read_filter(violations: Violations, at: str, item: filter_pb2.PriceFilter) -> PriceFilter | None:
    field, operator = _FIELD_OF.get(item.field), OPERATOR_OF.get(item.operator)
    if field is None:
        violations.add(f"{at}.field", f"set one of {', '.join(PriceField)}")
    if operator is None:
        violations.add(f"{at}.operator", f"set one of {', '.join(FilterOperator)}")
    if not item.values:
        violations.add(f"{at}.values", "it is required: give 1 value or more")
    for index, value in enumerate(item.values):
        if not value:
            violations.add(f"{at}.values[{index}]", "it is empty")
        violations.text(f"{at}.values[{index}]", value, max_length=MAX_PRICE_VALUE_LENGTH)
    if field is None or operator is None:
        return None
    return PriceFilter(field, operator, tuple(item.values))


def price_filter_messages(filters: Iterable[PriceFilter]) -> list[filter_pb2.PriceFilter]:
    """Filters as answers show them."""
    return [
        filter_pb2.PriceFilter(field=_FIELDS[item.field], operator=OPERATORS[item.operator], values=item.values)
        for item in filters
    ]
