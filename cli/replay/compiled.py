"""A mapping as one function of a row, made once for a file: it returns the event in the form of the wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as json_text
from typing import Any, NamedTuple, TypeAlias

from cli.replay import encoding
from cli.replay.fields import fields_of_cells, fields_of_names
from cli.replay.mapping import AMOUNTS, RowMapping, RowProblem, RowSkipped, quoted
from cli.replay.numbers import BadNumber
from cli.replay.properties import Properties, properties_of_cells, properties_of_names
from cli.replay.row_ids import row_id
from cli.replay.rows import Row
from cli.replay.times import EPOCH, TimeReader

_MAX_KEPT = 20_000  # encoded customers and metrics
SHOWN_COLUMNS = 300  # characters of the names of columns in a message
_NOTHING = '""'  # an empty text in JSON


class Encoded(NamedTuple):
    """An event in the form of the wire. seconds: its time, since 1970."""

    content: bytes
    seconds: int


ToEvent: TypeAlias = Callable[[Row], Encoded]
_Numbers: TypeAlias = Callable[[str], str]


def compiled(
    mapping: RowMapping, columns: Sequence[str] | None, numbers: _Numbers, times: TimeReader, *, are_texts: bool
) -> ToEvent:
    """The function that makes an event of a row. It raises RowProblem, RowSkipped.

    columns: of the file; None: each row names its own. numbers: reads amounts, and raises BadNumber. are_texts: every
    value of a row is a text.
    """
    fields_of = fields_of_names(mapping)
    properties_of: Properties | None = properties_of_names(mapping)
    if columns is not None:
        fields_of = fields_of_cells(mapping, columns, are_texts=are_texts)
        properties_of = properties_of_cells(mapping, columns)
    is_counted = _condition(mapping, columns)
    heads: dict[tuple[str, str, str], tuple[bytes, str, str, str]] = {}
    read_time = times.read
    field, optional, time_field = encoding.field, encoding.optional, encoding.time
    salt = f", {json_text(mapping.salt)}" if mapping.salt else ""

    def to_event(row: Row) -> Encoded:
        values = row.values
        if is_counted is not None:
            is_counted(values)
        event_id, customer, subscription, metric, name, quantity, cost, currency, stated_time = fields_of(values)
        if not customer:
            raise _empty(mapping, "customer_id", values)
        if not name:
            if not metric:
                raise _empty(mapping, "metric_id", values)
            if not quantity:
                raise _empty(mapping, "quantity", values)
        if not stated_time:
            raise _empty(mapping, "event_time", values)
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
        key = (customer, subscription, metric)
        kept = heads.get(key)
        if kept is None:
            if len(heads) >= _MAX_KEPT:
                heads.clear()
            head = (
                field(encoding.CUSTOMER, customer)
                + optional(encoding.SUBSCRIPTION, subscription)
                + optional(encoding.METRIC, metric)
            )
            kept = heads[key] = (head, json_text(customer), json_text(metric), json_text(subscription))
        if not event_id:
            pairs = json.dumps(sorted((key, value) for key, _, value in properties)) if properties else "[]"
            named = f'["event_name", {json_text(name)}], ' if name else ""
            _, customer_text, metric_text, subscription_text = kept
            text = (
                f'[{row.number}, [["cost", {json_text(cost) if cost else _NOTHING}], '
                f'["currency", {json_text(currency) if currency else _NOTHING}], '
                f'["customer_id", {customer_text}], {named}["metric_id", {metric_text}], '
                f'["quantity", {json_text(quantity)}], ["subscription_id", {subscription_text}]], '
                f'"{time.isoformat()}+00:00", {pairs}{salt}]'
            )
            event_id = row_id(text)
        since = time - EPOCH
        seconds = since.days * 86_400 + since.seconds
        parts = [field(encoding.EVENT_ID, event_id), kept[0]]
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


def _empty(mapping: RowMapping, name: str, values: Any) -> RowProblem:
    """The problem of a row without a value; of a row that names its own columns, also which it has."""
    kind = f"{name} is empty"
    sources = mapping.candidates(name)
    wanted = [one.column for one in sources if one.column is not None]
    if not isinstance(values, Mapping) or not wanted or any(one.exists(values) for one in sources):
        return RowProblem(kind)
    looked_for = repr(wanted[0]) if len(wanted) == 1 else f"any of {', '.join(map(repr, wanted))}"
    kind = f"{kind}: the row does not have {looked_for}"
    seen = quoted(", ".join(values), SHOWN_COLUMNS)[1:-1]
    return RowProblem(f"{kind}; it has {seen or 'nothing'}", kind)


def _amount(name: str, text: str, numbers: _Numbers) -> str:
    try:
        return numbers(text)
    except BadNumber as error:
        raise RowProblem(f"{name} is {quoted(text)}: it {error}", f"{name} {error}") from None


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


def amount_columns(mapping: RowMapping, columns: Sequence[str]) -> list[int]:
    """The places of the columns that have amounts."""
    sources = [source for name in AMOUNTS for source in mapping.candidates(name, columns)]
    return [columns.index(source.column) for source in sources if source.column in columns]
