"""A row of a file: its values, or the reason why it has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
NOT_UTF8 = "is not UTF-8"


@dataclass(slots=True)
class Row:
    """One row: its number among the rows (from 1), the line on which it ends, and its values.

    values: the cells in the order of the columns, or by column where each row names its own. original: the text of
    the row as the file has it, or a function that makes one.
    """

    number: int
    line: int
    values: Sequence[Any] | Mapping[str, Any]
    original: str | Callable[[], str] = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row whose values cannot be read. reason: continues the sentence "the row …".

    original: the text of the row; empty where it is too long to be kept.
    """

    number: int
    line: int
    reason: str
    original: str = ""


def text_of(row: Row | BadRow) -> str:
    """The text of a row as its file has it; empty where the file has no text."""
    return row.original if isinstance(row.original, str) else ""


def has_broken_bytes(text: str) -> bool:
    """Whether the text contains bytes that its encoding cannot decode; `source` makes surrogates of them."""
    return not text.isascii() and SURROGATE.search(text) is not None


def too_long(limit: int) -> str:
    """The reason of a row whose line has more than `limit` characters."""
    return f"is longer than {limit:,} characters"
