"""Reading CSV and NDJSON files row by row: a bad row becomes a finding with its line, never the end of the file."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

CSV = "csv"
NDJSON = "ndjson"
FORMATS = (CSV, NDJSON)

_SUFFIXES = {".csv": CSV, ".tsv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON, ".json": NDJSON}
MAX_EXPONENT = 60  # powers of ten; a JSON number beyond it is left as it is written, for the server to refuse


class FileProblem(Exception):
    """The file as a whole cannot be replayed; the message says why."""


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

    columns: the names in a CSV file's header; None for NDJSON, where every row names its own.
    size, position: bytes in all, and read so far (a little ahead of the row last seen).
    """

    def __init__(self, path: Path, form: str | None = None, delimiter: str | None = None) -> None:
        try:
            self._binary: BinaryIO = path.open("rb")
        except OSError as error:
            raise FileProblem(f"{path} cannot be read: {error.strerror}") from None
        self.path = path
        self.size = path.stat().st_size
        self.form = form or _SUFFIXES.get(path.suffix.lower()) or self._guess()
        # Bytes that are no UTF-8 pass as lone surrogates, so that one of them spoils its row and not the file.
        self._text = io.TextIOWrapper(self._binary, "utf-8-sig", errors="surrogateescape", newline="")
        self.columns: list[str] | None = None
        if self.form == CSV:
            self._reader = csv.reader(self._text, delimiter=delimiter or self._delimiter(path), strict=True)
            try:
                self.columns = self._header()
            except FileProblem:
                self._text.close()
                raise

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self.size if self._binary.closed else self._binary.tell()

    def __iter__(self) -> Iterator[Row | BadRow]:
        return self._csv_rows(self.columns) if self.columns is not None else self._ndjson_rows()

    def _guess(self) -> str:
        start = self._binary.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        self._binary.seek(0)
        return NDJSON if start.startswith(b"{") else CSV

    def _delimiter(self, path: Path) -> str:
        return "\t" if path.suffix.lower() == ".tsv" else ","

    def _header(self) -> list[str]:
        try:
            columns = [name.strip() for name in next(self._reader)]
        except StopIteration:
            raise FileProblem(f"{self.path} is empty: its first line has to name the columns") from None
        except csv.Error as error:
            raise FileProblem(f"the first line of {self.path} is no CSV: {error}") from None
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise FileProblem(f"{self.path} has more than one column named {', '.join(map(repr, twice))}")
        return columns

    def _csv_rows(self, columns: list[str]) -> Iterator[Row | BadRow]:
        number = 0
        while True:
            number += 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(number, self._reader.line_num, f"is no CSV: {error}")
                continue
            line = self._reader.line_num
            if not cells:
                number -= 1  # a blank line is no row
            elif len(cells) != len(columns):
                yield BadRow(number, line, f"has {len(cells)} cells where the header has {len(columns)}")
            elif any(_is_broken(cell) for cell in cells):
                yield BadRow(number, line, "is not UTF-8")
            else:
                yield Row(number, line, dict(zip(columns, cells, strict=True)))

    def _ndjson_rows(self) -> Iterator[Row | BadRow]:
        number = 0
        for line, text in enumerate(self._text, start=1):
            if not text.strip():
                continue
            number += 1
            if _is_broken(text):
                yield BadRow(number, line, "is not UTF-8")
                continue
            try:
                values = json.loads(text, parse_float=_plain, parse_int=str, parse_constant=str)
            except (ValueError, RecursionError) as error:
                yield BadRow(number, line, f"is no JSON: {str(error).partition(':')[0]}")
                continue
            if isinstance(values, dict):
                yield Row(number, line, values)
            else:
                yield BadRow(number, line, "is no JSON object")


def _is_broken(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text) if not text.isascii() else False


def _plain(number: str) -> str:
    """A JSON number without exponent, exactly: programs write 1e-05 for 0.00001."""
    value = Decimal(number)
    if abs(value.adjusted()) > MAX_EXPONENT:
        return number
    return f"{value:f}"
