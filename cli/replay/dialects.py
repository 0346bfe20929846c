"""The dialect of a CSV file: what separates its cells and what encloses them, found in its first lines."""

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cli.replay.source import FileProblem

SAMPLE_LINES = 200
DELIMITERS = ",;\t|"
QUOTES = "\"'"
NO_QUOTE = ""
_Texts: TypeAlias = Sequence[str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a row are separated, and what encloses those that contain the delimiter. quote: empty: nothing
    does.
    """

    delimiter: str = ","
    quote: str = '"'

    def cells(self, text: str) -> list[str]:
        """The cells of a row of one line. Raises csv.Error."""
        line = text.rstrip("\r\n")
        if not self.quote or self.quote not in line:
            return line.split(self.delimiter)
        return next(csv.reader([line], delimiter=self.delimiter, quotechar=self.quote, strict=True))


def sniff(
    sample: _Texts, name: str, delimiter: str | None, quote: str | None, wanted: Collection[Collection[str]] = ()
) -> Dialect:
    """The dialect of a file whose first lines are these, the header first.

    delimiter, quote: what an option says. wanted: the columns that are looked for, each with its alternatives. Raises
    FileProblem where several delimiters are equally likely: to take the wrong one would change what is read.
    """
    lines = [line for line in sample[:SAMPLE_LINES] if line.strip()]
    if not lines:
        return Dialect(delimiter or ",", '"' if quote is None else quote)
    if quote is None:
        quote = _quote(lines[0], delimiter)
    if delimiter is not None:
        return Dialect(delimiter, quote)
    found = [Dialect(each, quote) for each in DELIMITERS if each in _without_quoted(lines[0], quote)]
    if len(found) < 2:
        return found[0] if found else Dialect(",", quote)
    # Delimiters appear in names, too. The columns that are looked for decide, and then rows of one width.
    for ranks in ([_named(lines[0], one, wanted) for one in found], [_regular(lines, one) for one in found]):
        best = [one for one, each in zip(found, ranks, strict=True) if each == max(ranks)]
        if len(best) == 1:
            return best[0]
    shown = " or ".join({"\t": "tab"}.get(one.delimiter, f"'{one.delimiter}'") for one in best)
    raise FileProblem(
        f"the cells of {name} could be separated by {shown}", ("say which it is with --delimiter CHARACTER",)
    )


def _quote(header: str, delimiter: str | None) -> str:
    """A single quote, where it encloses the first name, and no double quote is there; otherwise a double quote."""
    text = header.strip()
    if text.startswith("'") and '"' not in text:
        end = text.find("'", 1)
        if end > 0 and (end + 1 == len(text) or text[end + 1] in (delimiter or DELIMITERS)):
            return "'"
    return '"'


def _without_quoted(line: str, quote: str) -> str:
    return "".join(line.split(quote)[::2]) if quote else line


def _named(header: str, dialect: Dialect, wanted: Collection[Collection[str]]) -> int:
    """How many of the wanted columns the header has."""
    try:
        names = {name.strip() for name in dialect.cells(header)}
    except csv.Error:
        return -1
    return sum(not names.isdisjoint(each) for each in wanted)


def _regular(lines: _Texts, dialect: Dialect) -> int:
    """How many rows are as wide as the header; 0 where others are as frequent as these."""
    widths: Counter[int] = Counter()
    for line in lines[1:]:
        try:
            widths[len(dialect.cells(line))] += 1
        except csv.Error:
            widths[0] += 1
    try:
        return widths[len(dialect.cells(lines[0]))]
    except csv.Error:
        return 0
