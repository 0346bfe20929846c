"""Rows of CSV files. A bad row does not affect the others.

To a CSV parser, a quote that is not closed makes one cell of everything after it. Therefore a quoted cell may span a
limited number of lines only. If it does not end within them, or if the result is not a row, only the line with the
quote is rejected, and reading continues with the next line.
"""

import csv
import re
from collections.abc import Iterator

from cli.replay.dialects import Dialect
from cli.replay.lines import Line, Lines
from cli.replay.rows import NOT_UTF8, SURROGATE, BadRow, Row, has_broken_bytes, text_of, too_long
from cli.replay.source import FileProblem

MAX_CELL_LINES = 100  # of one row
TELLING_WIDTH = 4  # columns; a line of free text seldom has as many cells as a row of that width

_OPEN_QUOTE = "a quote opens a cell and is not closed in its row"
_ENCODING_HINTS = (
    "convert it to UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE | tidemark replay - (with its encoding)",
)
_EMPTY_HINTS = ("its first line must name the columns",)


class CsvRows:
    """The rows below the header. name: of the file, for messages. columns: the names in the header. header: its text.
    dialect: how its cells are separated.

    Raises FileProblem when the header cannot be used.
    """

    def __init__(self, lines: Lines, dialect: Dialect, name: str) -> None:
        self._lines = lines
        self.dialect = dialect
        self._one_line_row = _one_line_row(dialect)
        # The length of lines and rows is limited already; csv's own limit would depend on where quotes are.
        csv.field_size_limit(2 * lines.max_length)
        self.header = ""
        self.columns = self._read_header(name)
        self._passed = 0  # rows

    def passed(self, count: int) -> Iterator[tuple[int, str]]:
        """Passes the next `count` rows, without reading cells where that is possible, before all others are read.

        The numbers of rows and their texts, until all are passed or the file ends. Raises FileEndedEarly.
        """
        while self._passed < count:
            _, texts = self._lines.plain(self.dialect.quote, count - self._passed)
            kept = [text for text in texts if text.strip("\r\n")]
            if not texts:
                if (first := self._lines.next()) is None:
                    return
                kept = [] if first.is_blank else [text_of(self._row(1, first))]
            if kept:
                self._passed += len(kept)
                yield len(kept), "".join(kept)

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows, also the bad ones. Raises FileEndedEarly after the last row that could be read."""
        number = self._passed
        lines, quote, delimiter, width = self._lines, self.dialect.quote, self.dialect.delimiter, len(self.columns)
        while True:
            at, texts = lines.plain(quote)
            for text in texts:
                at += 1
                cells = text.rstrip("\r\n").split(delimiter)
                if len(cells) == width and text.isascii() and text[0] not in "\r\n":
                    number += 1
                    yield Row(number, at, cells, text)
                elif text.strip("\r\n"):
                    number += 1
                    yield self._checked(number, at, cells, text)
            if texts:
                continue
            if (first := lines.next()) is None:
                return
            if not first.is_blank:
                number += 1
                yield self._row(first.row or number, first)

    def sample(self, length: int) -> list[list[str]]:
        """The cells of the next rows, of those that have been read already and have one line."""
        found = []
        for text in self._lines.sample(length):
            if self._one_line_row.fullmatch(text.rstrip("\r\n")):
                cells = self.dialect.cells(text)
                if len(cells) == len(self.columns):
                    found.append(cells)
        return found

    def _checked(self, number: int, line: int, cells: list[str], text: str) -> Row | BadRow:
        width = len(self.columns)
        if len(cells) != width:
            return BadRow(number, line, f"has {len(cells)} cells, but the header has {width}", text)
        if has_broken_bytes(text):
            return BadRow(number, line, NOT_UTF8, text)
        return Row(number, line, cells, text)

    def _row(self, number: int, first: Line) -> Row | BadRow:
        if first.too_long:
            return BadRow(number, first.number, too_long(self._lines.max_length))
        try:
            cells, taken = self._record(first)
        except csv.Error as error:
            return BadRow(number, first.number, f"is not CSV: {error}", first.text)
        width = len(self.columns)
        if len(taken) > 1 and (len(cells) != width or self._hides_rows(taken[1:], width)):
            self._lines.give_back(taken[1:])
            return BadRow(number, first.number, f"is not CSV: {_OPEN_QUOTE}", first.text)
        return self._checked(number, taken[-1].number, cells, "".join(line.text for line in taken))

    def _read_header(self, name: str) -> list[str]:
        first = self._lines.peek()
        if first is None:
            raise FileProblem(f"{name} is empty", _EMPTY_HINTS)
        self._lines.next()
        try:
            if first.too_long:
                raise csv.Error(f"it {too_long(self._lines.max_length)}")
            cells, taken = self._record(first)
        except csv.Error as error:
            raise FileProblem(f"the first line of {name} is not CSV: {error}") from None
        self.header = "".join(line.text for line in taken)
        columns = [cell.strip() for cell in cells]
        if any(SURROGATE.search(column) for column in columns):
            raise FileProblem(f"the first line of {name} is not UTF-8", _ENCODING_HINTS)
        if not any(columns):
            raise FileProblem(f"the first line of {name} is blank", _EMPTY_HINTS)
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        if repeated:
            raise FileProblem(
                f"{name} has more than one column named {', '.join(map(repr, repeated))}",
                ("rename them in its first line",),
            )
        return columns

    def _record(self, first: Line) -> tuple[list[str], list[Line]]:
        """The cells of the record that begins on a line, and the lines of the record.

        Raises csv.Error, and then only the first line is consumed.
        """
        quote = self.dialect.quote
        if not quote or quote not in first.text:
            return first.text.rstrip("\r\n").split(self.dialect.delimiter), [first]
        if self._one_line_row.fullmatch(first.text.rstrip("\r\n")) is not None:
            return self.dialect.cells(first.text), [first]
        taken: list[Line] = []
        try:
            reader = csv.reader(
                self._feed(first, taken), delimiter=self.dialect.delimiter, quotechar=quote, strict=True
            )
            return next(reader), taken
        except csv.Error as error:
            self._lines.give_back(taken[1:])
            if len(taken) > 1 or "unexpected end" in str(error):
                raise csv.Error(_OPEN_QUOTE) from None
            raise

    def _feed(self, first: Line, taken: list[Line]) -> Iterator[str]:
        """The lines that one record may span, as csv asks for them; each is added to `taken`."""
        line: Line | None = first
        length = 0
        limit = self._lines.max_length
        while line is not None and len(taken) < MAX_CELL_LINES and not line.too_long and length <= limit:
            taken.append(line)
            length += len(line.text)
            yield line.text
            line = self._lines.next_or_end()
        if line is not None:
            self._lines.give_back([line])

    def _hides_rows(self, further: list[Line], width: int) -> bool:
        """Whether the further lines of a record are rows of their own, which stray quotes turned into a cell.

        Two stray quotes, of which the first opens and the second closes a cell, make a record that is valid CSV.
        """
        texts = (line.text.rstrip("\r\n") for line in further)
        are_rows = [
            self._one_line_row.fullmatch(text) is not None and len(self.dialect.cells(text)) == width
            for text in texts
        ]
        if width >= TELLING_WIDTH:
            return any(are_rows)
        return are_rows[-1] or (len(are_rows) > 1 and all(are_rows[:-1]))


def _one_line_row(dialect: Dialect) -> re.Pattern[str]:
    """Matches a row of one line in which quotes enclose whole cells only."""
    delimiter, quote = re.escape(dialect.delimiter), re.escape(dialect.quote)
    if not quote:
        return re.compile(".*", re.DOTALL)
    cell = rf"(?:[^{quote}{delimiter}]*|{quote}(?:[^{quote}]++|{quote}{quote})*+{quote})"
    return re.compile(f"{cell}(?:{delimiter}{cell})*")
