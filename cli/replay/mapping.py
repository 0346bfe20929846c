"""From a row's columns to a usage event: which column or constant gives which field, times, and stable event ids."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from cli.replay.rows import Row, plain
from evaluator.ids import digest_id

# Where a field comes from when no option says so: the first of these columns that the row has.
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
PROPERTIES_PREFIX = "properties."  # of CSV columns that are properties without being asked for

_MILLISECONDS_FROM = Decimal(10) ** 11  # a unix time as large as this counts milliseconds (it is the year 5138)


AMOUNTS = ("quantity", "cost")
SHOWN_LENGTH = 60  # characters of a value that a message quotes
_ROW_ID_BYTES = 15  # which are 24 characters
_MAX_TIME_EXPONENT = 20  # powers of ten; no unix time has as many, and computing with more takes for ever
_WITH_EXPONENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+")


class RowProblem(Exception):
    """A row does not give a usage event; the message says which field and why.

    kind: the same for all rows with the same fault, whatever their values.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or message


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from: a column, or a constant."""

    column: str | None = None
    constant: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Source":
        """`name` is a column, `=value` a constant."""
        return cls(constant=text[1:]) if text.startswith("=") else cls(column=text)

    def value(self, values: Mapping[str, Any]) -> Any:
        """What the row holds there; None where it holds nothing."""
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
    """A usage event as its row gives it: amounts as they are written, what is absent empty."""

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
    """How rows become events. sources: by field, as the options name them; shift: added to every time."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    properties: Mapping[str, Source] = field(default_factory=dict)
    shift: timedelta = timedelta()

    def missing(self, columns: Iterable[str]) -> list[str]:
        """What a CSV file's header lacks for this mapping, one sentence each."""
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
        """The event of one row; raises RowProblem."""
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
        candidates = (Source(column=column).value(row.values) for column in DEFAULT_COLUMNS[name])
        return next((value for value in candidates if value is not None), None)

    def _text(self, name: str, row: Row) -> str:
        value = self._value(name, row)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise RowProblem(f"{name} is neither text nor a number")
        # Blanks around a cell are layout; the contract refuses them in ids and amounts.
        text = value.strip()
        return plain(text) if name in AMOUNTS and _WITH_EXPONENT.fullmatch(text) else text

    def _time(self, row: Row) -> datetime:
        text = self._text("event_time", row)
        if not text:
            raise RowProblem("event_time is empty")
        try:
            return parse_time(text) + self.shift
        except (ValueError, OverflowError):
            kind = "event_time is no time that can be read"
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
    """A value as a message quotes it: escaped, and not too long."""
    return repr(text if len(text) <= length else text[:length] + "…")


def parse_time(text: str) -> datetime:
    """The aware UTC time that `text` writes; raises ValueError or OverflowError.

    RFC 3339 and what is close to it (a blank for the T, no zone meaning UTC, more digits than microseconds, which
    are cut off), or a unix time in seconds or milliseconds.
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
    """An id for a row that has none: the same whenever the same row of the same file is mapped the same way.

    The row's number is part of it, because two equal rows are two events; what the mapping made of the row too,
    because one file may be replayed once for each of its metrics.
    """
    content = [number, sorted(texts.items()), time.isoformat(), sorted(properties.items())]
    return digest_id("row_", json.dumps(content), size=_ROW_ID_BYTES)
