"""A file of rows: CSV, JSON, CloudEvents or Parquet, by its content or its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path

from cli.replay.csv_rows import CsvRows
from cli.replay.dialects import SAMPLE_LINES, sniff
from cli.replay.json_rows import ArrayElements, JsonRows, exact_numbers, texts_with_exact_numbers
from cli.replay.lines import MAX_LINE_LENGTH, REJECTED_MARK, Line, Lines
from cli.replay.parquet_rows import ParquetRows
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileProblem, TextSource

CSV = "csv"
NDJSON = "ndjson"
CLOUDEVENTS = "cloudevents"
PARQUET = "parquet"
FORMATS = (CSV, NDJSON, CLOUDEVENTS, PARQUET)

_SUFFIXES = {".csv": CSV, ".tsv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON, ".json": NDJSON}
_PACKED = {".gz", ".gzip", ".zst", ".zstd"}
_ARRAY = re.compile(r"\[\s*(?:[{\]]|$)")
_SPECVERSION = re.compile(r'"specversion"\s*:')
_EMPTY_HINTS = ("its first line must name the columns",)


class RowFile:
    """An open file of rows.

    path: `-` is standard input. name: of the file, for messages. size: bytes in all, None if it is not known.
    form: one of FORMATS; None: by the content or the name. delimiter, quote: of CSV; None: by the first lines.
    wanted: the columns that are looked for, each with its alternatives. max_line_length: characters. Raises
    FileProblem.

    identity: what the beginning of the file says about which file it is.
    """

    def __init__(
        self,
        path: Path,
        form: str | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        wanted: Collection[Collection[str]] = (),
        *,
        max_line_length: int = MAX_LINE_LENGTH,
    ) -> None:
        self.path = path
        self._source = TextSource(path)
        self.name = self._source.name
        self.size = self._source.size
        self._csv: CsvRows | None = None
        self._parquet: ParquetRows | None = None
        self._json: JsonRows | None = None
        self._lines = Lines(self._source, max_line_length)
        suffixes = [suffix.lower() for suffix in path.suffixes]
        self._suffix = next((suffix for suffix in reversed(suffixes) if suffix not in _PACKED), "")
        try:
            self.form = self._form(form)
            if self.form == PARQUET:
                self._parquet = ParquetRows(self._source)
                self.identity = self._parquet.identity
            elif self.form == CSV:
                self._csv = self._open_csv(delimiter, quote, wanted)
                self.identity = self._csv.header
            else:
                self._json = self._open_json()
                self.identity = ""
        except FileProblem:
            self._source.close()
            raise

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._source.close()

    @property
    def columns(self) -> list[str] | None:
        """The names of the columns of CSV and Parquet; None for JSON, in which each row names its own columns."""
        table = self._csv or self._parquet
        return None if table is None else table.columns

    @property
    def header(self) -> str:
        """The text that comes before the rows in CSV."""
        return "" if self._csv is None else self._csv.header

    @property
    def delimiter(self) -> str:
        """What separates the cells of CSV."""
        return "" if self._csv is None else self._csv.dialect.delimiter

    @property
    def position(self) -> int:
        """How many bytes have been read; a little more than the rows so far."""
        return self._source.position

    def sample(self) -> list[list[str]]:
        """The cells of the first rows of CSV, of those that have been read already and have one line."""
        if self._csv is None:
            return []
        return self._csv.sample(SAMPLE_LINES)

    def stop(self) -> None:
        """Ends a read that waits for a pipe; no further rows follow."""
        self._source.stop()

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows, also the bad ones. Raises FileEndedEarly after the last row that could be read."""
        return iter(self._rows)

    def passed(self, count: int) -> Iterator[tuple[int, str]]:
        """Passes the first `count` rows, which no one needs, in much less time than reading them takes.

        The numbers of rows and their texts, part by part, until all are passed or the file ends. Raises
        FileEndedEarly.
        """
        return self._rows.passed(count)

    @property
    def _rows(self) -> CsvRows | ParquetRows | JsonRows:
        rows = self._csv or self._parquet or self._json
        assert rows is not None
        return rows

    def _form(self, form: str | None) -> str:
        if self._source.empty:
            raise FileProblem(f"{self.name} is empty", _EMPTY_HINTS)
        if self._source.parquet or form == PARQUET:
            return PARQUET
        if form is not None:
            return form
        # A file of rejected rows of JSON begins with the mark of the first.
        if self._source.beginning.startswith(("{", REJECTED_MARK[:2])) or _ARRAY.match(self._source.beginning):
            return NDJSON
        if self._suffix in _SUFFIXES:
            return _SUFFIXES[self._suffix]
        first = self._lines.peek()
        return NDJSON if first is not None and first.text.lstrip().startswith(("{", "[")) else CSV

    def _open_csv(self, delimiter: str | None, quote: str | None, wanted: Collection[Collection[str]]) -> CsvRows:
        self._lines.peek()
        if delimiter is None and self._suffix == ".tsv":
            delimiter = "\t"
        dialect = sniff(self._lines.sample(SAMPLE_LINES), self.name, delimiter, quote, wanted)
        return CsvRows(self._lines, dialect, self.name)

    def _open_json(self) -> JsonRows:
        if _ARRAY.match(self._source.beginning):
            elements = iter(ArrayElements(self._source, self._lines.max_length))
            first = next(elements, None)
            lines: Iterator[Line] = chain([] if first is None else [first], elements)
            plain: Callable[..., tuple[int, list[str]]] = _no_lines
        else:
            first = self._lines.peek()
            lines = iter(self._lines.next, None)
            plain = self._lines.plain
        if self.form == NDJSON and first is not None and _SPECVERSION.search(first.text):
            self.form = CLOUDEVENTS
        read = exact_numbers if self.form == CLOUDEVENTS else texts_with_exact_numbers
        return JsonRows(lines, self._lines.max_length, read, plain)


def _no_lines(most: int | None = None) -> tuple[int, list[str]]:
    return 0, []
