"""A table that fits into its terminal: columns of low rank go first, then texts are cut, ids last."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

import click

from cli.resources.tables.model import Column, Form

SEPARATOR = "  "
# Columns of the terminal that a cut cell keeps at least: a text and an id while there are columns that can go, then a
# text, and at last an id.
COMFORT, LONG_ID, MIN_TEXT, MIN_ID = 28, 40, 12, 20
ELLIPSIS = "…"
_CUT = (Form.TEXT, Form.LIST, Form.MAP, Form.ID)

Style = Callable[[str], str]


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    style: Callable[[Column, str], Style],
    width: int | None,
    widths: Sequence[int] | None = None,
) -> Iterator[str]:
    """The lines of a table, the headings first. width: of the terminal; None: no limit, and nothing is cut.

    widths: of the columns, for rows that come one by one; a longer id stays whole.
    """
    if widths is None:
        kept, sizes = layout(columns, rows, width)
    else:
        kept = list(range(len(columns)))
        sizes = [max(size, len(column.heading)) for size, column in zip(widths, columns, strict=True)]
    headings = [column.heading.upper() for column in columns]
    yield _line(columns, headings, kept, sizes, lambda _column, _text: _heading)
    for row in rows:
        yield _line(columns, row, kept, sizes, style, keep_ids=widths is not None)


def layout(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None
) -> tuple[list[int], list[int]]:
    """Which columns a table shows, and how wide each is."""
    rows = list(rows)
    natural = [
        max([display_width(column.heading), *(display_width(row[number]) for row in rows)])
        for number, column in enumerate(columns)
    ]
    # A column in which nothing is written says nothing, unless every table has it.
    kept = [
        number
        for number, column in enumerate(columns)
        if not rows or column.rank == 0 or any(row[number] for row in rows)
    ]
    if width is None:
        return kept, [natural[number] for number in kept]
    while True:
        rank = max(columns[number].rank for number in kept)
        sizes = _cut(columns, kept, natural, width, COMFORT if rank else MIN_TEXT)
        if sizes is not None:
            return kept, sizes
        if rank == 0:
            return kept, _squeezed(columns, kept, natural, width)
        kept.remove(max(number for number in kept if columns[number].rank == rank))


def _cut(
    columns: Sequence[Column], kept: Sequence[int], natural: Sequence[int], width: int, least: int
) -> list[int] | None:
    """The widths with texts and very long ids cut so that the line fits; None if it does not."""
    sizes = {number: natural[number] for number in kept}
    bounds = {
        number: LONG_ID if columns[number].form is Form.ID else least
        for number in kept
        if columns[number].form in _CUT
    }
    excess = sum(sizes.values()) + len(SEPARATOR) * (len(kept) - 1) - width
    while excess > 0:
        longest = max(
            (number for number, bound in bounds.items() if sizes[number] > bound),
            key=lambda number: sizes[number],
            default=None,
        )
        if longest is None:
            return None
        sizes[longest] -= 1
        excess -= 1
    return [sizes[number] for number in kept]


def _squeezed(columns: Sequence[Column], kept: Sequence[int], natural: Sequence[int], width: int) -> list[int]:
    """The widths when even the columns of rank 0 do not fit: texts at their least, then ids are cut, too."""
    sizes = {
        number: min(natural[number], MIN_TEXT)
        if columns[number].form in (Form.TEXT, Form.LIST, Form.MAP)
        else natural[number]
        for number in kept
    }
    while sum(sizes.values()) + len(SEPARATOR) * (len(kept) - 1) > width:
        longest = max(kept, key=lambda number: sizes[number])
        if sizes[longest] <= MIN_ID:
            break  # the terminal wraps the line
        sizes[longest] -= 1
    return [sizes[number] for number in kept]


def _line(
    columns: Sequence[Column],
    texts: Sequence[str],
    kept: Sequence[int],
    sizes: Sequence[int],
    style: Callable[[Column, str], Style],
    *,
    keep_ids: bool = False,
) -> str:
    parts = []
    for place, (number, size) in enumerate(zip(kept, sizes, strict=True)):
        column = columns[number]
        text = texts[number] if keep_ids and column.form is Form.ID else shortened(texts[number], size, column.form)
        blanks = " " * max(0, size - display_width(text))
        styled = style(column, texts[number])(text) if text else ""
        last = place == len(kept) - 1
        parts.append(blanks + styled if column.form is Form.NUMBER else styled + ("" if last else blanks))
    return SEPARATOR.join(parts).rstrip()


def shortened(text: str, size: int, form: Form = Form.TEXT) -> str:
    """The text in so many columns of a terminal: cut at the end, or an id in its middle, with `…`."""
    if display_width(text) <= size:
        return text
    if form is Form.ID and size >= 9:
        tail = (size - 1) // 3
        return _fitting(text, size - 1 - tail) + ELLIPSIS + _fitting(text[::-1], tail)[::-1]
    return _fitting(text, size - 1) + ELLIPSIS


def _fitting(text: str, size: int) -> str:
    used, end = 0, 0
    for character in text:
        used += _character_width(character)
        if used > size:
            break
        end += 1
    return text[:end]


def display_width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _heading(text: str) -> str:
    return click.style(text, bold=True)
