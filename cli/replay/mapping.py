"""Makes a usage event of a row: columns or constants for its fields, times, and stable event ids."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from cli.replay.numbers import without_exponent
from cli.replay.rows import Row
from evaluator.ids import digest_id

# The columns of a field without an option: the first of them that the row has.
DEFAULT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "event_id": ("event_id",),
    "customer_id": ("customer_id",),
    "subscription_id": ("subscription_id",),
    "metric_id": ("metric_id",),
    "quantity": ("quantity",),
    "cost": ("cost",),
    "currency": ("currency",),
    "event_time": ("event_time", "time", "timestamp"),
}
REQUIRED = ("customer_id", "metric_id", "quantity", "event_time")
PROPERTIES_PREFIX = "properties."  # of columns that become properties without an option

_MILLISECONDS_FROM = Decimal(10) ** 11  # a unix time of at least this size is in milliseconds (year 5138 in seconds)

AMOUNTS = ("quantity", "cost")
SHOWN_LENGTH = 60  # characters of a value that a message quotes
_ROW_ID_BYTES = 15  # 24 characters
_MAX_TIME_EXPONENT = 20  # powers of ten; more than any unix time, and larger ones take very long to compute with
_WITH_EXPONENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+")


class RowProblem(Exception):
    """A row does not give a usage event; the message names the field and the reason.

    kind: the message without values, so that rows with the same problem have the same kind.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or message


@dataclass(frozen=True, slots=True)
class FieldSource:
    """The source of a value: a column, or a constant."""

    column: str | None = None
    constant: str | None = None

    @classmethod
    def parse(cls, text: str) -> "FieldSource":
        """`name` is a column, `=value` a constant."""
        return cls(constant=text[1:]) if text.startswith("=") else cls(column=text)

    def value(self, values: Mapping[str, Any]) -> Any:
        """The value in a row; None if the row has none."""
        if self.column is None:
            return self.constant
        found: Any = values.get(self.column)
        if found is None and "." in self.column:  # a path into an NDJSON row
            found = values
            for part in self.column.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        return None if found == "" else found


@dataclass(frozen=True, slots=True)
class Event:
    """A usage event of a row. Amounts are texts, as the row has them; absent fields are empty."""

    event_id: str
    customer_id: str
    subscription_id: str
    metric_id: str
    quantity: str
    cost: str
    currency: str
    event_time: datetime
    properties: Mapping[str, str]


@dataclass(frozen=True)
class RowMapping:
    """How rows become events.

    sources: of the fields that an option names. properties: the sources of properties, by name. shift: added to each
    time.
    """

    sources: Mapping[str, FieldSource] = field(default_factory=dict)
    properties: Mapping[str, FieldSource] = field(default_factory=dict)
    shift: timedelta = timedelta()

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that this mapping needs and a CSV header does not have, a sentence each."""
        known = set(columns)
        named = [*self.sources.values(), *self.properties.values()]
        problems = [
            f"there is no column {source.column!r}"
            for source in named
            if source.column is not None and source.column not in known
        ]
        for name in REQUIRED:
            if name not in self.sources and not known.intersection(DEFAULT_COLUMNS[name]):
                problems.append(f"no column gives the field {name}")
        return problems

    def event(self, row: Row) -> Event:
        """The event of one row. Raises RowProblem."""
        texts = {name: self._text(name, row) for name in DEFAULT_COLUMNS if name != "event_time"}
        for name in REQUIRED:
            if texts.get(name) == "":
                raise RowProblem(f"{name} is empty")
        event_time = self._time(row)
        properties = self._properties(row)
        event_id = texts.pop("event_id")
        if not event_id:
            event_id = _derived_id(row.number, texts, event_time, properties)
        return Event(event_id=event_id, event_time=event_time, properties=properties, **texts)

    def _value(self, name: str, row: Row) -> Any:
        source = self.sources.get(name)
        if source is not None:
            return source.value(row.values)
        candidates = (FieldSource(column=column).value(row.values) for column in DEFAULT_COLUMNS[name])
        return next((value for value in candidates if value is not None), None)

    def _text(self, name: str, row: Row) -> str:
        value = self._value(name, row)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise RowProblem(f"{name} is neither text nor a number")
        # Files align cells with blanks; the contract rejects them in ids and amounts.
        text = value.strip()
        return without_exponent(text) if name in AMOUNTS and _WITH_EXPONENT.fullmatch(text) else text

    def _time(self, row: Row) -> datetime:
        text = self._text("event_time", row)
        if not text:
            raise RowProblem("event_time is empty")
        try:
            return parse_time(text) + self.shift
        except (ValueError, OverflowError):
            kind = "event_time is not a time"
            raise RowProblem(f"{kind}: {quoted(text)}", kind) from None

    def _properties(self, row: Row) -> dict[str, str]:
        given: dict[str, Any] = {}
        whole = row.values.get("properties")
        if isinstance(whole, Mapping):
            given.update(whole)
        for column, value in row.values.items():
            if column.startswith(PROPERTIES_PREFIX) and value != "":
                given[column.removeprefix(PROPERTIES_PREFIX)] = value
        for name, source in self.properties.items():
            given[name] = source.value(row.values)
        properties = {}
        for name, value in given.items():
            if isinstance(value, bool):
                properties[name] = "true" if value else "false"
            elif isinstance(value, str):
                properties[name] = value
            elif value is not None:
                kind = "a property is neither text nor a number"
                raise RowProblem(f"the property {quoted(name)[1:-1]} is neither text nor a number", kind)
        return properties


def quoted(text: str, length: int = SHOWN_LENGTH) -> str:
    """A value for a message: escaped, and cut at `length` characters."""
    return repr(text if len(text) <= length else text[:length] + "…")


def parse_time(text: str) -> datetime:
    """The aware UTC time of a text. Raises ValueError or OverflowError.

    Accepts RFC 3339 and similar forms (a blank instead of the T; no zone means UTC; digits beyond microseconds are
    cut off), and unix times in seconds or milliseconds.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        time = datetime.fromisoformat(text)
        return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).astimezone(UTC)
    if not number.is_finite() or abs(number.adjusted()) > _MAX_TIME_EXPONENT:
        raise ValueError(text)
    microseconds = number * (1_000 if abs(number) >= _MILLISECONDS_FROM else 1_000_000)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))


def _derived_id(number: int, texts: Mapping[str, str], time: datetime, properties: Mapping[str, str]) -> str:
    """An id for a row without one. It is the same each time the same file is replayed with the same options.

    It depends on the number of the row, because two equal rows are two events; and on the fields of the event,
    because one file may be replayed once for each of its metrics.
    """
    content = [number, sorted(texts.items()), time.isoformat(), sorted(properties.items())]
    return digest_id("row_", json.dumps(content), size=_ROW_ID_BYTES)
