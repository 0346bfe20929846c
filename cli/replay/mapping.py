"""What of a row becomes which field of a usage event: columns or constants, by options and by usual names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# The columns of a field without an option: the first of them that a row has.
DEFAULT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "event_id": ("event_id",),
    "customer_id": ("customer_id",),
    "subscription_id": ("subscription_id",),
    "metric_id": ("metric_id",),
    "event_name": ("event_name",),
    "quantity": ("quantity",),
    "cost": ("cost",),
    "currency": ("currency",),
    "event_time": ("event_time", "time", "timestamp"),
}
AMOUNTS = ("quantity", "cost")
PROPERTIES = "properties"
PROPERTIES_PREFIX = "properties."  # of columns that become properties without an option
SHOWN_LENGTH = 60  # characters of a value that a message quotes


class RowProblem(Exception):
    """A row does not give a usage event; the message names the field and the reason.

    kind: the message without values, so that rows with the same problem have the same kind.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind or message


class RowSkipped(Exception):
    """A row is left out because of an option; the message is the reason, and is the same for all such rows."""


@dataclass(frozen=True, slots=True)
class FieldSource:
    """The source of a value: a column, or a constant."""

    column: str | None = None
    constant: str | None = None

    @classmethod
    def parse(cls, text: str) -> FieldSource:
        """`name` is a column, `=value` a constant."""
        return cls(constant=text[1:]) if text.startswith("=") else cls(column=text)

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether a row whose columns have names has this one, perhaps without a value."""
        if self.column is None or self.column in values:
            return True
        *outer, last = self.column.split(".")
        found: Any = values
        for part in outer:
            found = found.get(part) if isinstance(found, Mapping) else None
        return isinstance(found, Mapping) and last in found

    def value(self, values: Mapping[str, Any]) -> Any:
        """The value in a row whose columns have names; None if the row has none."""
        if self.column is None:
            return self.constant
        found: Any = values.get(self.column)
        if found is None and "." in self.column:  # a path into an NDJSON row
            found = values
            for part in self.column.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        return None if found == "" else found


@dataclass(frozen=True)
class RowMapping:
    """How rows become events.

    sources: of the fields that an option names. properties: the sources of properties, by name. usual: the columns of
    fields without an option. unset: the values of fields where a row has none. only: a column, and its values in the
    rows that are counted; other rows are skipped. salt: a part of the ids of rows without one.
    """

    sources: Mapping[str, FieldSource] = field(default_factory=dict)
    properties: Mapping[str, FieldSource] = field(default_factory=dict)
    usual: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: DEFAULT_COLUMNS)
    unset: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, frozenset[str]] | None = None
    salt: str = ""

    def candidates(self, name: str, columns: Iterable[str] | None = None) -> list[FieldSource]:
        """The sources of a field, of which the first that has a value counts; of `columns` only, where they are
        known.
        """
        if (source := self.sources.get(name)) is not None:
            return [source]
        known = None if columns is None else set(columns)
        return [FieldSource(column=each) for each in self.usual[name] if known is None or each in known]

    @property
    def wanted(self) -> list[tuple[str, ...]]:
        """The columns that this mapping looks for, each with its alternatives."""
        named = [*self.sources.values(), *self.properties.values()]
        usual = [columns for name, columns in self.usual.items() if name not in self.sources]
        return [(source.column,) for source in named if source.column is not None] + usual

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that this mapping needs and a CSV header does not have, a sentence each."""
        known = list(columns)
        named = [*self.sources.values(), *self.properties.values()]
        problems = [
            f"there is no column {source.column!r}"
            for source in named
            if source.column is not None and source.column not in known
        ]
        required = ["customer_id", "event_time"]
        if not self.candidates("event_name", known):
            required[1:1] = ["metric_id", "quantity"]
        for name in required:
            if not self.candidates(name, known):
                problems.append(f"no column gives the field {name}")
        return problems


def quoted(text: str, length: int = SHOWN_LENGTH) -> str:
    """A value for a message: escaped, and cut at `length` characters."""
    return repr(text if len(text) <= length else text[:length] + "…")
