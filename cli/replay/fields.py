"""The values of a row that become fields of its event: of cells by their place, of JSON by the names of its members.

The rows of a file of JSON have few shapes, that is, names in an order. Where a value is follows from the shape, and
is found out once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from cli.replay.mapping import FieldSource, RowMapping, RowProblem

MAX_SHAPES = 256  # that are kept
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
Fields: TypeAlias = Callable[[Any], Sequence[Any]]  # the values of FIELDS; empty where there is none
_Read: TypeAlias = Callable[[Any], Any]


class _Picked(NamedTuple):
    """Where the values of FIELDS are.

    pick: takes them from the values of a row with the constants behind them. paths: the places in FIELDS of values
    that are deeper in a row.
    """

    pick: Callable[[list[Any]], tuple[Any, ...]]
    constants: list[str]
    paths: list[tuple[int, FieldSource]]


def fields_of_cells(mapping: RowMapping, columns: Sequence[str], *, are_texts: bool) -> Fields:
    """The function of the cells of a row. It raises RowProblem. are_texts: every cell is a text."""
    candidates = {name: mapping.candidates(name, columns) for name in FIELDS}
    picked = _picked(candidates, columns) if are_texts and not mapping.unset else None
    if picked is not None:
        pick, constants, _ = picked
        return lambda cells: [text.strip() for text in pick(cells + constants)]
    places = {column: place for place, column in enumerate(columns)}
    return _one_by_one([_by_place(candidates[name], places, mapping.unset.get(name)) for name in FIELDS])


def fields_of_names(mapping: RowMapping) -> Fields:
    """The function of the members of a row of JSON. It raises RowProblem."""
    candidates = {name: mapping.candidates(name) for name in FIELDS}
    one_by_one = _one_by_one([_by_name(candidates[name], mapping.unset.get(name)) for name in FIELDS])
    if mapping.unset:
        return one_by_one

    @lru_cache(MAX_SHAPES)
    def picked_of(shape: tuple[str, ...]) -> _Picked | None:
        return _picked(candidates, shape)

    def fields_of(values: Mapping[str, Any]) -> Sequence[Any]:
        if (picked := picked_of(tuple(values))) is not None:
            pick, constants, paths = picked
            try:
                found = [text.strip() for text in pick([*values.values(), *constants])]
                for place, source in paths:
                    value = source.value(values)
                    found[place] = "" if value is None else value.strip()
            except AttributeError:  # a value is no text
                return one_by_one(values)
            return found
        return one_by_one(values)

    return fields_of


def _picked(candidates: Mapping[str, Sequence[FieldSource]], columns: Sequence[str]) -> _Picked | None:
    """Where the values are in rows with these columns; None: that depends on the values."""
    places = {column: place for place, column in enumerate(columns)}
    constants: list[str] = []
    indexes: list[int] = []
    paths: list[tuple[int, FieldSource]] = []
    for place, name in enumerate(FIELDS):
        found = [one for one in candidates[name] if one.column is None or _may_have(places, one.column)]
        if len(found) > 1:
            return None
        source = found[0] if found else FieldSource(constant="")
        if source.column in places:
            indexes.append(places[source.column])
            continue
        if source.column is not None:
            paths.append((place, source))
        indexes.append(len(columns) + len(constants))
        constants.append(source.constant or "")
    return _Picked(itemgetter(*indexes), constants, paths)


def _may_have(names: Mapping[str, int], column: str) -> bool:
    """Whether a row with members of these names may have a value for a column, which may be a path."""
    return column in names or ("." in column and column.partition(".")[0] in names)


def _one_by_one(readers: Sequence[_Read]) -> Fields:
    named = list(zip(FIELDS, readers, strict=True))

    def fields_of(values: Any) -> Sequence[Any]:
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

    return fields_of


def _by_name(sources: Sequence[FieldSource], unset: str | None) -> _Read:
    def read(values: Any) -> Any:
        for source in sources:
            if (value := source.value(values)) is not None:
                return value
        return unset

    return read


def _by_place(sources: Sequence[FieldSource], places: Mapping[str, int], unset: str | None) -> _Read:
    found = [(None if one.column is None else places[one.column], one.constant) for one in sources]

    def read(cells: Any) -> Any:
        for place, constant in found:
            value = constant if place is None else cells[place]
            if value is not None and value != "":
                return value
        return unset

    return read
