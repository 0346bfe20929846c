"""A file of rows: CSV or NDJSON, by its name or by its content."""

from collections.abc import Iterator
from pathlib import Path

from cli.replay.csv_rows import CsvRows
from cli.replay.lines import MAX_LINE_LENGTH, Lines
from cli.replay.ndjson_rows import ndjson_rows
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileProblem, TextSource

CSV = "csv"
NDJSON = "ndjson"
FORMATS = (CSV, NDJSON)

_SUFFIXES = {".csv": CSV, ".tsv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON, ".json": NDJSON}
OTHER_DELIMITERS = ";\t|,"  # those that a header of a single column may contain instead


class RowFile:
    """An open file of rows.

    path: `-` is standard input. name: of the file, for messages. size: bytes in all, None if it is not known.
    form: CSV or NDJSON; None: by the name or the content. delimiter: of CSV; None: a comma, or a tab for .tsv.
    max_line_length: characters. Raises FileProblem.
    """

    def __init__(
        self,
        path: Path,
        form: str | None = None,
        delimiter: str | None = None,
        *,
        max_line_length: int = MAX_LINE_LENGTH,
    ) -> None:
        self.path = path
        self._source = TextSource(path)
        self.name = self._source.name
        self.size = self._source.size
        self._lines = Lines(self._source, max_line_length)
        self._csv: CsvRows | None = None
        suffix = (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()
        self.delimiter = delimiter or ("\t" if suffix == ".tsv" else ",")
        try:
            if self._source.empty:
                raise FileProblem(f"{self.name} is empty", ("its first line must name the columns",))
            self.form = form or _SUFFIXES.get(suffix) or self._guess()
            if self.form == CSV:
                self._csv = CsvRows(self._lines, self.delimiter, self.name)
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
        """The names in the header of a CSV file; None for NDJSON, in which each row names its own columns."""
        return None if self._csv is None else self._csv.columns

    @property
    def position(self) -> int:
        """How many bytes have been read; a little more than the rows so far."""
        return self._source.position

    @property
    def suggested_delimiter(self) -> str | None:
        """The delimiter that the header seems to have, if it has a single column with the present one."""
        if self.columns is None or len(self.columns) > 1:
            return None
        return next((other for other in OTHER_DELIMITERS if other in self.columns[0]), None)

    def stop(self) -> None:
        """Ends a read that waits for a pipe; no further rows follow."""
        self._source.stop()

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows, also the bad ones. Raises FileEndedEarly after the last row that could be read."""
        return ndjson_rows(self._lines) if self._csv is None else iter(self._csv)

    def _guess(self) -> str:
        first = self._lines.peek()
        return NDJSON if first is not None and first.text.lstrip().startswith(("{", "[")) else CSV

    def _refuse_array(self) -> None:
        first = self._lines.peek()
        text = "" if first is None else first.text.strip()
        if text == "[" or text.startswith(("[{", "[ {")):
            raise FileProblem(
                f"{self.name} is one JSON array, and not one JSON object on each line",
                (f"jq -c '.[]' {self.path} | tidemark replay -",),
            )
