"""The properties of an event: of columns that an option names, of columns `properties.NAME`, and of an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from cli.replay import encoding
from cli.replay.fields import MAX_SHAPES
from cli.replay.mapping import PROPERTIES, PROPERTIES_PREFIX, RowMapping, RowProblem, quoted

_MAX_KEPT = 20_000  # encoded keys
# Of each property the key, the key in the form of the wire, and the value.
Properties: TypeAlias = Callable[[Any], Sequence[tuple[str, bytes, str]]]


def _property_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    kind = "a property is neither text nor a number"
    raise RowProblem(f"the property {quoted(name)[1:-1]} is neither text nor a number", kind)


def properties_of_cells(mapping: RowMapping, columns: Sequence[str]) -> Properties | None:
    """The function of the cells of a row; None: they have none. It raises RowProblem."""
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


def properties_of_names(mapping: RowMapping) -> Properties:
    """The function of the members of a row of JSON. It raises RowProblem."""
    key_of = lru_cache(_MAX_KEPT)(encoding.prefix)

    @lru_cache(MAX_SHAPES)
    def columns_of(shape: tuple[str, ...]) -> tuple[bool, list[tuple[str, str]]]:
        """Whether rows with these members may have properties, and the columns of single ones with their names."""
        columns = [(one, one.removeprefix(PROPERTIES_PREFIX)) for one in shape if one.startswith(PROPERTIES_PREFIX)]
        return bool(columns or mapping.properties or PROPERTIES in shape), columns

    def properties_of(values: Mapping[str, Any]) -> Sequence[tuple[str, bytes, str]]:
        has_any, columns = columns_of(tuple(values))
        if not has_any:
            return ()
        given: dict[str, Any] = {}
        whole = values.get(PROPERTIES)
        if isinstance(whole, Mapping):
            given.update(whole)
        for column, name in columns:
            if values[column] != "":
                given[name] = values[column]
        for name, source in mapping.properties.items():
            given[name] = source.value(values)
        return [
            (name, key_of(name), value if type(value) is str else _property_text(name, value))
            for name, value in given.items()
            if value is not None
        ]

    return properties_of
