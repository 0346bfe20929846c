"""A row of a file: its values, or the reason why it has none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
NOT_UTF8 = "is not UTF-8"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number among the rows (from 1), the line on which it ends, its values by column."""

    number: int
    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row whose values cannot be read. reason: continues the sentence "the row …"."""

    number: int
    line: int
    reason: str


def has_broken_bytes(text: str) -> bool:
    """Whether the text contains bytes that its encoding cannot decode; `source` makes surrogates of them."""
    return not text.isascii() and SURROGATE.search(text) is not None


def too_long(limit: int) -> str:
    """The reason of a row whose line has more than `limit` characters."""
    return f"is longer than {limit:,} characters"
