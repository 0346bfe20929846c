"""The table of `tidemark keys list`."""

import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import click

from cli.console import bad, named, print_result
from store.identity.keys import KeyRecord

SEPARATOR = "   "  # between two columns
HEADING = ("key id", "organization", "name", "roles", "created", "last used", "expires", "revoked")


def print_table(records: Sequence[KeyRecord]) -> None:
    """Prints a row for each key on standard output, below a heading."""
    rows = [_cells(record) for record in records]
    widths = [max(map(_width, column)) for column in zip(HEADING, *rows, strict=True)]
    _print_row(HEADING, widths, [partial(click.style, bold=True)] * len(HEADING))
    for row in rows:
        _print_row(row, widths, (named, *[str] * (len(HEADING) - 2), bad))


def _cells(record: KeyRecord) -> tuple[str, ...]:
    settings = record.settings
    roles = ",".join(sorted(settings.roles)).lower()
    return (
        record.key_id,
        record.organization.name,
        record.identity or settings.display_name,
        f"{roles} of {settings.customer_id}" if settings.customer_id else roles,
        _minute(record.create_time),
        _minute(record.last_use_time),
        _minute(settings.expire_time),
        _minute(record.revoke_time),
    )


def _print_row(cells: Sequence[str], widths: Sequence[int], styles: Sequence[Callable[[str], str]]) -> None:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    print_result(SEPARATOR.join(style(cell) for cell, style in zip(padded, styles, strict=True)))


def _minute(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else ""


def _width(text: str) -> int:
    """The width of the text on a terminal, in columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
