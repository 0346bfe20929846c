"""A mapping as one function of a row, made once for a file: it returns the event in the form of the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as json_text
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from cli.replay import encoding
from cli.replay.mapping import (
    AMOUNTS,
    PROPERTIES,
    PROPERTIES_PREFIX,
    FieldSource,
    RowMapping,
    RowProblem,
    RowSkipped,
    quoted,
)
from cli.replay.numbers import BadNumber
from cli.replay.row_ids import row_id
from cli.replay.rows import Row
from cli.replay.times import EPOCH, TimeReader

_MAX_KEPT = 20_000  # encoded customers and metrics
# The order of the values that are read from a row.
FIELDS = (
    "event_id",
    "customer_id",
    "subscription_id",
    "metric_id",
    "event_name",
    "quantity",
    "cost",
    "currency",
    "event_time",
)


class Encoded(NamedTuple):
    """An event in the form of the wire. seconds: its time, since 1970."""

    content: bytes
    seconds: int


ToEvent: TypeAlias = Callable[[Row], Encoded]
_Numbers: TypeAlias = Callable[[str], str]
_Values: TypeAlias = Callable[[Any], Sequence[Any]]
_Properties: TypeAlias = Callable[[Any], list[tuple[str, bytes, str]]]  # key, key in the form of the wire, value


def compiled(
    mapping: RowMapping, columns: Sequence[str] | None, numbers: _Numbers, times: TimeReader, *, are_texts: bool
) -> ToEvent:
    """The function that makes an event of a row. It raises RowProblem, RowSkipped.

    columns: of the file; None: each row names its own. numbers: reads amounts, and raises BadNumber. are_texts: every
    value of a row is a text.
    """
    values_of = _values(mapping, columns, are_texts=are_texts)
    properties_of = _of_names(mapping) if columns is None else _of_cells(mapping, columns)
    is_counted = _condition(mapping, columns)
    heads: dict[tuple[str, str, str], bytes] = {}
    read_time = times.read
    field, optional, time_field = encoding.field, encoding.optional, encoding.time
    salt = f", {json_text(mapping.salt)}" if mapping.salt else ""

    def to_event(row: Row) -> Encoded:
        values = row.values
        if is_counted is not None:
            is_counted(values)
        event_id, customer, subscription, metric, name, quantity, cost, currency, stated_time = values_of(values)
        if not customer:
            raise RowProblem("customer_id is empty")
        if not name:
            if not metric:
                raise RowProblem("metric_id is empty")
            if not quantity:
                raise RowProblem("quantity is empty")
        if not stated_time:
            raise RowProblem("event_time is empty")
        try:
            time = read_time(stated_time)
        except (ValueError, OverflowError, ArithmeticError):
            kind = "event_time is not a time"
            raise RowProblem(f"{kind}: {quoted(str(stated_time))}", kind) from None
        if quantity:
            quantity = _amount("quantity", quantity, numbers)
        if cost:
            cost = _amount("cost", cost, numbers)
        properties = properties_of(values) if properties_of is not None else ()
        if not event_id:
            pairs = json.dumps(sorted((key, value) for key, _, value in properties)) if properties else "[]"
            named = f'["event_name", {json_text(name)}], ' if name else ""
            text = (
                f'[{row.number}, [["cost", {json_text(cost)}], ["currency", {json_text(currency)}], '
                f'["customer_id", {json_text(customer)}], {named}["metric_id", {json_text(metric)}], '
                f'["quantity", {json_text(quantity)}], ["subscription_id", {json_text(subscription)}]], '
                f'"{time.isoformat()}+00:00", {pairs}{salt}]'
            )
            event_id = row_id(text)
        key = (customer, subscription, metric)
        head = heads.get(key)
        if head is None:
            if len(heads) >= _MAX_KEPT:
                heads.clear()
            head = heads[key] = (
                field(encoding.CUSTOMER, customer)
                + optional(encoding.SUBSCRIPTION, subscription)
                + optional(encoding.METRIC, metric)
            )
        since = time - EPOCH
        seconds = since.days * 86_400 + since.seconds
        parts = [field(encoding.EVENT_ID, event_id), head]
        if quantity:
            parts.append(field(encoding.QUANTITY, quantity))
        if cost:
            parts.append(field(encoding.COST, cost))
        if currency:
            parts.append(field(encoding.CURRENCY, currency))
        parts.append(time_field(seconds, since.microseconds * 1_000))
        for _, encoded_key, value in properties:
            parts.append(encoding.entry(encoded_key, value))
        if name:
            parts.append(field(encoding.NAME, name))
        return Encoded(b"".join(parts), seconds)

    return to_event


def _amount(name: str, text: str, numbers: _Numbers) -> str:
    try:
        return numbers(text)
    except BadNumber as error:
        raise RowProblem(f"{name} is {quoted(text)}: it {error}", f"{name} {error}") from None


def _values(mapping: RowMapping, columns: Sequence[str] | None, *, are_texts: bool) -> _Values:
    """The function of the values of a row that returns those of FIELDS; empty where there is none."""
    candidates = {name: mapping.candidates(name, columns) for name in FIELDS}
    if columns is None:
        return _generic([_by_name(candidates[name], mapping.unset.get(name)) for name in FIELDS])
    places = {column: place for place, column in enumerate(columns)}
    if are_texts and not mapping.unset and all(len(each) < 2 for each in candidates.values()):
        constants: list[str] = []
        indexes = []
        for name in FIELDS:
            source = next(iter(candidates[name]), FieldSource(constant=""))
            if source.column is None:
                indexes.append(len(columns) + len(constants))
                constants.append(source.constant or "")
            else:
                indexes.append(places[source.column])
        pick = itemgetter(*indexes)
        return lambda cells: [text.strip() for text in pick(cells + constants)]
    return _generic([_by_place(candidates[name], places, mapping.unset.get(name)) for name in FIELDS])


def _generic(readers: Sequence[Callable[[Any], Any]]) -> _Values:
    named = list(zip(FIELDS, readers, strict=True))

    def values_of(values: Any) -> Sequence[Any]:
        found: list[Any] = []
        for name, read in named:
            value = read(values)
            if type(value) is str:
                found.append(value.strip())
            elif value is None:
                found.append("")
            elif name == "event_time" and hasattr(value, "year"):
                found.append(value)
            else:
                raise RowProblem(f"{name} is neither text nor a number")
        return found

    return values_of


def _by_name(sources: Sequence[FieldSource], unset: str | None) -> Callable[[Any], Any]:
    def read(values: Any) -> Any:
        for source in sources:
            if (value := source.value(values)) is not None:
                return value
        return unset

    return read


def _by_place(sources: Sequence[FieldSource], places: Mapping[str, int], unset: str | None) -> Callable[[Any], Any]:
    found = [(None if one.column is None else places[one.column], one.constant) for one in sources]

    def read(cells: Any) -> Any:
        for place, constant in found:
            value = constant if place is None else cells[place]
            if value is not None and value != "":
                return value
        return unset

    return read


def _condition(mapping: RowMapping, columns: Sequence[str] | None) -> Callable[[Any], None] | None:
    """The function that raises RowSkipped for rows that are not counted."""
    if mapping.only is None:
        return None
    column, counted = mapping.only
    if columns is not None and column not in columns:
        return None
    place = None if columns is None else columns.index(column)

    def check(values: Any) -> None:
        value = values.get(column) if place is None else values[place]
        if value not in counted:
            raise RowSkipped(f"{column} is {quoted(str(value))}" if value else f"{column} is empty")

    return check


def _property_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    kind = "a property is neither text nor a number"
    raise RowProblem(f"the property {quoted(name)[1:-1]} is neither text nor a number", kind)


def _of_cells(mapping: RowMapping, columns: Sequence[str]) -> _Properties | None:
    places = {column: place for place, column in enumerate(columns)}
    found: list[tuple[str, bytes, int | None, str]] = []
    for column, place in places.items():
        name = column.removeprefix(PROPERTIES_PREFIX)
        if column.startswith(PROPERTIES_PREFIX) and name not in mapping.properties:
            found.append((name, encoding.prefix(name), place, ""))
    for name, source in mapping.properties.items():
        place_of = None if source.column is None else places[source.column]
        found.append((name, encoding.prefix(name), place_of, source.constant or ""))
    whole = places.get(PROPERTIES)
    if not found and whole is None:
        return None

    def properties_of(cells: Any) -> list[tuple[str, bytes, str]]:
        given = []
        for name, key, place, constant in found:
            value = constant if place is None else cells[place]
            if value is not None and value != "":
                given.append((name, key, value if type(value) is str else _property_text(name, value)))
        if whole is not None and isinstance(cells[whole], Mapping):
            names = {name for name, _, _ in given}
            for name, value in cells[whole].items():
                if value is not None and name not in names:
                    given.append((name, encoding.prefix(name), _property_text(name, value)))
        return given

    return properties_of


def _of_names(mapping: RowMapping) -> _Properties:
    keys: dict[str, bytes] = {}

    def properties_of(values: Any) -> list[tuple[str, bytes, str]]:
        given: dict[str, Any] = {}
        whole = values.get(PROPERTIES)
        if isinstance(whole, Mapping):
            given.update(whole)
        for column, value in values.items():
            if column.startswith(PROPERTIES_PREFIX) and value != "":
                given[column.removeprefix(PROPERTIES_PREFIX)] = value
        for name, source in mapping.properties.items():
            given[name] = source.value(values)
        found = []
        for name, value in given.items():
            if value is None:
                continue
            key = keys.get(name)
            if key is None:
                if len(keys) >= _MAX_KEPT:
                    keys.clear()
                key = keys[name] = encoding.prefix(name)
            found.append((name, key, _property_text(name, value)))
        return found

    return properties_of


def amount_columns(mapping: RowMapping, columns: Sequence[str]) -> list[int]:
    """The places of the columns that have amounts."""
    sources = [source for name in AMOUNTS for source in mapping.candidates(name, columns)]
    return [columns.index(source.column) for source in sources if source.column in columns]
