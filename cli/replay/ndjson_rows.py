"""Rows of NDJSON files: a JSON object on each line. A bad row does not affect the others."""

import json
from collections.abc import Iterator
from typing import Any

from cli.replay.lines import Line, Lines
from cli.replay.numbers import without_exponent
from cli.replay.rows import NOT_UTF8, SURROGATE, BadRow, Row, has_broken_bytes, too_long

MAX_SHOWN_KEY = 60  # characters


def ndjson_rows(lines: Lines) -> Iterator[Row | BadRow]:
    """The rows, also the bad ones. Raises FileEndedEarly after the last row that could be read."""
    number = 0
    while (line := lines.next()) is not None:
        if not line.text.strip():
            continue
        number += 1
        if line.too_long:
            yield BadRow(number, line.number, too_long(lines.max_length))
        elif has_broken_bytes(line.text):
            yield BadRow(number, line.number, NOT_UTF8)
        else:
            yield _row(number, line)


def _row(number: int, line: Line) -> Row | BadRow:
    try:
        values = json.loads(
            line.text,
            parse_float=without_exponent,
            parse_int=str,
            parse_constant=str,
            object_pairs_hook=_without_duplicates,
        )
        has_surrogates = "\\u" in line.text and _has_surrogates(values)
    except _DuplicateKey as error:
        return BadRow(number, line.number, f"has the key {str(error)[:MAX_SHOWN_KEY]!r} twice")
    except RecursionError:
        return BadRow(number, line.number, "is not JSON: it is nested too deeply")
    except ValueError as error:
        return BadRow(number, line.number, f"is not JSON: {str(error).partition(':')[0]}")
    if has_surrogates:
        reason = "contains half of a surrogate pair (\\ud800 to \\udfff), which is not a character"
        return BadRow(number, line.number, reason)
    if not isinstance(values, dict):
        return BadRow(number, line.number, "is not a JSON object")
    return Row(number, line.number, values)


class _DuplicateKey(Exception):
    """An object contains a key twice, so that its value is ambiguous; the message is the key."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for index, key in enumerate(keys) if key in keys[:index]))
    return found


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogates(key) or _has_surrogates(each) for key, each in value.items())
    return isinstance(value, list) and any(map(_has_surrogates, value))
