"""Rows of Parquet files, one part of a row group after the other, so that memory does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from cli.replay.numbers import without_exponent
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileEndedEarly, FileProblem, TextSource
from cli.replay.unpacking import INSTALL

_Array: TypeAlias = Any  # pyarrow has no types
ROWS_AT_ONCE = 4_096
READ_BYTES = 1 << 20  # of a column that is read ahead


class ParquetRows:
    """The rows of a Parquet file. columns: the names; those of the members of a structure have dots.

    count: of its rows. Values are texts, times and dates; lists have no form as a field. Raises FileProblem.
    """

    def __init__(self, source: TextSource) -> None:
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError:
            raise FileProblem(
                f"{source.name} is a Parquet file, for which a module is missing",
                (INSTALL, "or export it as CSV or NDJSON"),
            ) from None
        self.name = source.name
        self._error = pyarrow.ArrowException
        self._bytes = source.open_again()
        try:
            self._file = pyarrow.parquet.ParquetFile(
                self._bytes, buffer_size=READ_BYTES, pre_buffer=False, memory_map=False
            )
            schema = self._file.schema_arrow
            self.columns = _names(pyarrow.struct(list(schema)), "")
        except (pyarrow.ArrowException, OSError) as error:
            self.close()
            raise FileProblem(f"{source.name} is no Parquet file that can be read: {_first_line(error)}") from None
        repeated = sorted({column for column in self.columns if self.columns.count(column) > 1})
        if repeated:
            self.close()
            raise FileProblem(f"{source.name} has more than one column named {', '.join(map(repr, repeated))}")
        self.count = self._file.metadata.num_rows
        self._passed = 0  # rows
        # A changed file has another footer, as a Parquet file is never appended to.
        metadata = self._file.metadata
        self.identity = f"{metadata.num_rows} {metadata.num_row_groups} {metadata.serialized_size} {schema}"

    def close(self) -> None:
        """Closes the file."""
        self._bytes.close()

    def passed(self, count: int) -> Iterator[tuple[int, str]]:
        """Passes the next `count` rows, before all others are read: the number of those that the file has."""
        self._passed = min(count, self.count)
        yield self._passed, ""

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows. Raises FileEndedEarly after the last row that could be read."""
        metadata = self._file.metadata
        number, group = 0, 0
        while group < metadata.num_row_groups and number + metadata.row_group(group).num_rows <= self._passed:
            number += metadata.row_group(group).num_rows
            group += 1
        groups = range(group, metadata.num_row_groups)
        try:
            for batch in self._file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups):
                if number < self._passed:
                    skipped = min(self._passed - number, batch.num_rows)
                    number += skipped
                    batch = batch.slice(skipped)
                for cells in self._cells(batch):
                    number += 1
                    yield Row(number, number, cells, _original(self.columns, cells))
        except (self._error, OSError) as error:
            raise FileEndedEarly(f"{self.name} cannot be read to its end: {_first_line(error)}") from None

    def _cells(self, batch: Any) -> Iterator[Sequence[Any]]:
        import pyarrow

        columns: list[list[Any]] = []
        for array in batch.columns:
            _flatten(array, columns, pyarrow)
        return zip(*columns, strict=True)


def _names(kind: Any, prefix: str) -> list[str]:
    import pyarrow

    found = []
    for field in kind:
        name = f"{prefix}{field.name}"
        if pyarrow.types.is_struct(field.type):
            found += _names(field.type, f"{name}.")
        else:
            found.append(name)
    return found


def _flatten(array: _Array, columns: list[list[Any]], pyarrow: Any) -> None:
    """Adds the values of a column, or of each member of a structure."""
    if pyarrow.types.is_struct(array.type):
        for member in array.flatten():  # of a structure that is null, all are null
            _flatten(member, columns, pyarrow)
    else:
        columns.append(_values(array, pyarrow))


def _values(array: _Array, pyarrow: Any) -> Any:
    """The values of a column: texts, times, dates, or mappings."""
    types, kind = pyarrow.types, array.type
    if types.is_dictionary(kind):
        return _values(array.dictionary_decode(), pyarrow)
    if types.is_string(kind) or types.is_large_string(kind):
        return array.to_pylist()
    if types.is_integer(kind) or types.is_boolean(kind):
        return pyarrow.compute.cast(array, pyarrow.string()).to_pylist()
    if types.is_floating(kind):
        # The shortest decimal number that stands for the same float. A file that needs exact ones has decimals.
        return _each(pyarrow.compute.cast(array, pyarrow.string()).to_pylist(), without_exponent)
    if types.is_decimal(kind):
        return _each(array.to_pylist(), lambda value: f"{value:f}")
    if types.is_timestamp(kind):
        # Digits beyond microseconds are cut off, as in all other files.
        plain = pyarrow.timestamp("us", "UTC" if kind.tz is not None else None)
        return pyarrow.compute.cast(array, plain, safe=False).to_pylist()
    if types.is_date(kind):
        return pyarrow.compute.cast(array, pyarrow.date32(), safe=False).to_pylist()
    if types.is_map(kind):
        return _each(array.to_pylist(), dict)
    if types.is_null(kind):
        return [None] * len(array)
    return array.to_pylist()


def _each(values: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    return [None if value is None else change(value) for value in values]


def _original(columns: Sequence[str], cells: Sequence[Any]) -> Callable[[], str]:
    """The row as a line of NDJSON, in which it can be mended and replayed with the same options."""

    def text() -> str:
        values = {name: value for name, value in zip(columns, cells, strict=True) if value is not None}
        return json.dumps(values, ensure_ascii=False, default=str) + "\n"

    return text


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
