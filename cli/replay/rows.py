"""Rows of CSV and NDJSON files: a bad row becomes a finding with its line, and never hides another.

A quote that is not closed would make one cell of all that follows. So a quoted cell may span a bounded number of
lines; where it does not end within them, or makes no row of them, only the line with the quote is rejected and
reading goes on with the next line.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from cli.replay.lines import MAX_LINE_LENGTH, Line, Lines
from cli.replay.source import FileEndedEarly, FileProblem, TextSource

__all__ = ["CSV", "FORMATS", "NDJSON", "BadRow", "FileEndedEarly", "FileProblem", "Row", "RowFile"]

CSV = "csv"
NDJSON = "ndjson"
FORMATS = (CSV, NDJSON)

_SUFFIXES = {".csv": CSV, ".tsv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON, ".json": NDJSON}
MAX_EXPONENT = 60  # powers of ten; a number beyond it is left as it is written, for the server to refuse
MAX_CELL_LINES = 100  # that one row may span; a quote that is not closed within them is a stray one
TELLING_WIDTH = 4  # columns from which a line of a text hardly ever has as many cells as a row by chance
OTHER_DELIMITERS = ";\t|"  # that a header suggests where it has no comma

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number among the rows (from 1), the line it ends on, its values by column."""

    number: int
    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that holds no values that could be used, and why."""

    number: int
    line: int
    reason: str


class RowFile:
    """An open file of rows.

    path: `-` is standard input. columns: the names in a CSV file's header; None for NDJSON, where every row names its
    own. size: bytes in all, None where that is not known; position: bytes read so far (a little ahead of the row last
    seen). Raises FileProblem.
    """

    def __init__(self, path: Path, form: str | None = None, delimiter: str | None = None) -> None:
        self.path = path
        self._source = TextSource(path)
        self.name = self._source.name
        self.size = self._source.size
        self._lines = Lines(self._source)
        self._columns: list[str] | None = None
        try:
            if self._source.empty:
                raise FileProblem(f"{self.name} is empty", ("its first line has to name the columns",))
            suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
            self.form = form or _SUFFIXES.get(suffix.lower()) or self._guess()
            self.delimiter = delimiter or ("\t" if suffix.lower() == ".tsv" else ",")
            if self.form == CSV:
                # Cells are bounded by the length of lines and of rows; csv's own limit would depend on the quotes.
                csv.field_size_limit(2 * MAX_LINE_LENGTH)
                self._well_formed = _well_formed(self.delimiter)
                self._columns = self._header()
            else:
                self._refuse_array()
        except FileProblem:
            self._source.close()
            raise

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    @property
    def columns(self) -> list[str] | None:
        """The names in the header of a CSV file."""
        return self._columns

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._source.position

    @property
    def suggested_delimiter(self) -> str | None:
        """What seems to separate the cells, where it is not the delimiter in use."""
        if self._columns is None or len(self._columns) > 1:
            return None
        found = [other for other in OTHER_DELIMITERS + "," if other in self._columns[0]]
        return found[0] if found else None

    def stop(self) -> None:
        """Ends a read that waits for a pipe; there are no more rows then."""
        self._source.stop()

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows, bad ones too. Raises FileEndedEarly behind the last that could be read."""
        return self._csv_rows(self._columns) if self._columns is not None else self._ndjson_rows()

    def _first(self) -> Line | None:
        """The first line that is not blank, which stays the next one."""
        while (line := self._lines.next()) is not None:
            if line.text.strip():
                self._lines.give_back([line])
                return line
        return None

    def _guess(self) -> str:
        first = self._first()
        return NDJSON if first is not None and first.text.lstrip().startswith(("{", "[")) else CSV

    def _refuse_array(self) -> None:
        first = self._first()
        text = "" if first is None else first.text.strip()
        if text == "[" or text.startswith(("[{", "[ {")):
            raise FileProblem(
                f"{self.name} is one JSON array, not an object a line",
                (f"jq -c '.[]' {self.path} | tidemark replay -",),
            )

    def _header(self) -> list[str]:
        first = self._first()
        if first is None:
            raise FileProblem(f"{self.name} is empty", ("its first line has to name the columns",))
        self._lines.next()
        try:
            if first.too_long:
                raise csv.Error(f"it is longer than {MAX_LINE_LENGTH:,} characters")
            cells, _ = self._record(first)
        except csv.Error as error:
            raise FileProblem(f"the first line of {self.name} is no CSV: {error}") from None
        columns = [name.strip() for name in cells]
        if any(_SURROGATE.search(name) for name in columns):
            raise FileProblem(f"the first line of {self.name} is not UTF-8", _ENCODING_HINTS)
        if not any(columns):
            raise FileProblem(f"the first line of {self.name} is blank: it has to name the columns")
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise FileProblem(
                f"{self.name} has more than one column named {', '.join(map(repr, twice))}",
                ("rename them in its first line",),
            )
        return columns

    def _csv_rows(self, columns: list[str]) -> Iterator[Row | BadRow]:
        number = 0
        while (first := self._lines.next()) is not None:
            if first.blank:
                continue
            number += 1
            if first.too_long:
                yield BadRow(number, first.number, f"is longer than {MAX_LINE_LENGTH:,} characters")
                continue
            try:
                cells, taken = self._record(first)
            except csv.Error as error:
                yield BadRow(number, first.number, f"is no CSV: {error}")
                continue
            if len(taken) > 1 and (len(cells) != len(columns) or self._hides_rows(taken[1:], len(columns))):
                self._lines.give_back(taken[1:])
                yield BadRow(number, first.number, "is no CSV: a quote opens a cell and is not closed in its row")
                continue
            last = taken[-1].number
            if len(cells) != len(columns):
                yield BadRow(number, last, f"has {len(cells)} cells where the header has {len(columns)}")
            elif _is_broken("".join(line.text for line in taken)):
                yield BadRow(number, last, "is not UTF-8")
            else:
                yield Row(number, last, dict(zip(columns, cells, strict=True)))

    def _record(self, first: Line) -> tuple[list[str], list[Line]]:
        """The cells of the record that begins with a line, and the lines that it takes.

        Raises csv.Error, and then only the first line has been used up.
        """
        if '"' not in first.text:
            return first.text.rstrip("\r\n").split(self.delimiter), [first]
        taken: list[Line] = []

        def feed() -> Iterator[str]:
            line: Line | None = first
            length = 0
            while (
                line is not None and len(taken) < MAX_CELL_LINES and not line.too_long and length <= MAX_LINE_LENGTH
            ):
                taken.append(line)
                length += len(line.text)
                yield line.text
                line = self._lines.next_or_end()
            if line is not None:
                self._lines.give_back([line])

        try:
            return next(csv.reader(feed(), delimiter=self.delimiter, strict=True)), taken
        except csv.Error as error:
            self._lines.give_back(taken[1:])
            if len(taken) > 1 or "unexpected end" in str(error):
                raise csv.Error("a quote opens a cell and is not closed in its row") from None
            raise

    def _hides_rows(self, further: list[Line], width: int) -> bool:
        """Whether the further lines of a record are rows of their own, which a stray quote made cells of.

        Two stray quotes, one that opens and one that closes, make a record that is formally right.
        """
        alone = [
            self._well_formed.fullmatch(text) is not None and self._width(text) == width
            for text in (line.text.rstrip("\r\n") for line in further)
        ]
        if width >= TELLING_WIDTH:
            return any(alone)
        return alone[-1] or (len(alone) > 1 and all(alone[:-1]))

    def _width(self, text: str) -> int:
        return len(next(csv.reader([text], delimiter=self.delimiter, strict=True)))

    def _ndjson_rows(self) -> Iterator[Row | BadRow]:
        number = 0
        while (line := self._lines.next()) is not None:
            if not line.text.strip():
                continue
            number += 1
            if line.too_long:
                yield BadRow(number, line.number, f"is longer than {MAX_LINE_LENGTH:,} characters")
            elif _is_broken(line.text):
                yield BadRow(number, line.number, "is not UTF-8")
            else:
                yield _ndjson_row(number, line)


_ENCODING_HINTS = ("iconv -f WINDOWS-1252 -t UTF-8 FILE | tidemark replay -, or whatever its encoding is",)


def _ndjson_row(number: int, line: Line) -> Row | BadRow:
    try:
        values = json.loads(
            line.text, parse_float=plain, parse_int=str, parse_constant=str, object_pairs_hook=_without_duplicates
        )
        if "\\u" in line.text and _has_surrogates(values):
            return BadRow(
                number, line.number, "has half of a surrogate pair (\\ud800 to \\udfff), which is no character"
            )
    except _DuplicateKey as error:
        return BadRow(number, line.number, f"has the key {str(error)[:60]!r} twice")
    except RecursionError:
        return BadRow(number, line.number, "is no JSON: it is nested too deeply")
    except ValueError as error:
        return BadRow(number, line.number, f"is no JSON: {str(error).partition(':')[0]}")
    return (
        Row(number, line.number, values)
        if isinstance(values, dict)
        else BadRow(number, line.number, "is no JSON object")
    )


class _DuplicateKey(Exception):
    """An object has a key twice; which of the values is meant cannot be known."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]  # add returns None
    return found


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogates(key) or _has_surrogates(each) for key, each in value.items())
    return isinstance(value, list) and any(map(_has_surrogates, value))


def _is_broken(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def _well_formed(delimiter: str) -> re.Pattern[str]:
    """What a row of one line looks like whose quotes enclose cells and stand nowhere else."""
    cell = rf'(?:[^"{re.escape(delimiter)}]*|"(?:[^"]|"")*")'
    return re.compile(f"{cell}(?:{re.escape(delimiter)}{cell})*")


def plain(number: str) -> str:
    """A number without exponent, exactly: programs write 1e-05 for 0.00001. What is no number stays as it is."""
    try:
        value = Decimal(number)
    except InvalidOperation:  # no number, or an exponent beyond all bounds
        return number
    if not value.is_finite() or abs(value.adjusted()) > MAX_EXPONENT:
        return number
    return f"{value:f}"
