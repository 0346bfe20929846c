"""Rows in JSON: an object on each line, or the objects of an array. A bad row does not affect the others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, TypeAlias

from cli.replay.lines import Line
from cli.replay.numbers import without_exponent
from cli.replay.rows import NOT_UTF8, SURROGATE, BadRow, Row, has_broken_bytes, too_long
from cli.replay.source import FileEndedEarly, TextSource

MAX_SHOWN_KEY = 60  # characters
_LINE_ENDS = ("\n", "", "\r\n")
_BLANK = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n]*(?:,[ \t\r\n]*)?")
_NEXT_OBJECT = re.compile(r",[ \t\r\n]*(?=\{)")
_SCAN = json.JSONDecoder(parse_float=str, parse_int=str)
ReadJson: TypeAlias = Callable[[str], Any]


class JsonRows:
    """Rows in JSON. lines: the text of each, on a line of its own. plain: the texts of the next rows, as those of
    `Lines.plain`, so that most rows need no `Line`. read: makes the value of such a text.
    """

    def __init__(
        self, lines: Iterable[Line], max_length: int, read: ReadJson, plain: Callable[..., tuple[int, list[str]]]
    ) -> None:
        self._lines = iter(lines)
        self._max_length = max_length
        self._read = read
        self._plain = plain
        self._passed = 0  # rows

    def passed(self, count: int) -> Iterator[tuple[int, str]]:
        """Passes the next `count` rows without reading them, before all others are read.

        The numbers of rows and their texts, until all are passed or the file ends. Raises FileEndedEarly.
        """
        while self._passed < count:
            _, texts = self._plain(most=count - self._passed)
            kept = [text for text in texts if not text.isspace()]
            if not texts:
                line = next(self._lines, None)
                if line is None:
                    return
                kept = ["" if line.too_long else line.text] if line.too_long or line.text.strip() else []
            if kept:
                self._passed += len(kept)
                yield len(kept), "".join(kept)

    def __iter__(self) -> Iterator[Row | BadRow]:
        """The rows, also the bad ones. Raises FileEndedEarly after the last row that could be read."""
        number = self._passed
        plain, row = self._plain, self._row
        while True:
            at, texts = plain()
            for text in texts:
                at += 1
                if not text.isspace():
                    number += 1
                    yield row(number, at, text)
            if texts:
                continue
            line = next(self._lines, None)
            if line is None:
                return
            if line.too_long:
                number += 1
                yield BadRow(line.row or number, line.number, too_long(self._max_length))
            elif line.text.strip():
                number += 1
                yield row(line.row or number, line.number, line.text)

    def _row(self, number: int, line: int, text: str) -> Row | BadRow:
        if not text.isascii() and has_broken_bytes(text):
            return BadRow(number, line, NOT_UTF8, text)
        try:
            values = self._read(text)
            has_surrogates = "\\u" in text and _has_surrogates(values)
        except _DuplicateKey as error:
            return BadRow(number, line, f"has the key {str(error)[:MAX_SHOWN_KEY]!r} twice", text)
        except RecursionError:
            return BadRow(number, line, "is not JSON: it is nested too deeply", text)
        except ValueError as error:
            return BadRow(number, line, f"is not JSON: {str(error).partition(':')[0]}", text)
        if has_surrogates:
            reason = "contains half of a surrogate pair (\\ud800 to \\udfff), which is not a character"
            return BadRow(number, line, reason, text)
        if type(values) is not dict:
            return BadRow(number, line, "is not a JSON object", text)
        return Row(number, line, values, text)


class ArrayElements:
    """The texts of the elements of a JSON array, each on one line, with the number of the line where it begins.

    An element with an error ends before the next object, so that it does not hide the others.
    """

    def __init__(self, source: TextSource, max_length: int) -> None:
        self._source = source
        self._max_length = max_length
        self._text = ""
        self._at = 0  # in the text
        self._number = 1  # of the line there
        self._is_open = True
        self._failure: FileEndedEarly | None = None

    def __iter__(self) -> Iterator[Line]:
        """The elements. Raises FileEndedEarly after the last one that is complete."""
        while self._skip(_BLANK) is None and self._more():
            pass
        self._at += 1  # the bracket
        while True:
            character = self._skip(_BETWEEN)
            if character is None:
                if self._more():
                    continue
                break
            if character == "]":
                break
            end = self._end_of_element()
            if end is None:
                if len(self._text) - self._at <= self._max_length and self._more():
                    continue
                if self._failure is not None:
                    break  # the end of the element is lost
                end = self._end_of_bad_element()
            number, element = self._number, self._text[self._at : end]
            self._go_to(end)
            if len(element) > self._max_length:
                yield Line(number, "", too_long=True)
            else:
                yield Line(number, element.replace("\n", " ").replace("\r", " ").strip())
        if self._failure is not None:
            raise self._failure

    def _more(self) -> bool:
        """Reads more of the text; whether there was more."""
        if not self._is_open:
            return False
        try:
            piece = self._source.read()
        except FileEndedEarly as error:
            self._failure, piece = error, ""
        self._is_open = bool(piece)
        self._text, self._at = self._text[self._at :] + piece, 0
        return self._is_open

    def _skip(self, pattern: re.Pattern[str]) -> str | None:
        """The next character after what the pattern matches; None where the text ends."""
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._go_to(found.end())
        return self._text[self._at] if self._at < len(self._text) else None

    def _go_to(self, end: int) -> None:
        self._number += self._text.count("\n", self._at, end)
        self._at = end

    def _end_of_element(self) -> int | None:
        if (end := _end_of_value(self._text, self._at)) is None:
            return None
        # A number may go on, and so may what follows the element by mistake.
        found = _BLANK.match(self._text, end)
        after = end if found is None else found.end()
        if after == len(self._text):
            return None if self._is_open else end
        return end if self._text[after] in ",]" else None

    def _end_of_bad_element(self) -> int:
        """The end of an element with an error: where the next object begins that can be read."""
        start = self._at + 1
        while True:
            found = _NEXT_OBJECT.search(self._text, start)
            if found is not None and _end_of_value(self._text, found.end()) is not None:
                return found.start()
            next_start = len(self._text) - 1 if found is None else found.start()
            if self._is_open and len(self._text) - next_start <= self._max_length:
                before = self._at
                self._more()
                start = max(1, next_start - before)
            elif found is None:
                return len(self._text)
            else:
                start = found.end()
            if len(self._text) - self._at > 3 * self._max_length:
                # Of an endless element only the end is kept; it is too long to be shown anyway.
                kept = max(self._at, start - self._max_length)
                self._go_to(kept)


def _end_of_value(text: str, at: int) -> int | None:
    """The end of the JSON value that begins there; None: there is none."""
    try:
        return _SCAN.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return None


class _DuplicateKey(Exception):
    """An object contains a key twice, so that its value is ambiguous; the message is the key."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for index, key in enumerate(keys) if key in keys[:index]))
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _reader(decoder: json.JSONDecoder) -> ReadJson:
    """`decode` of a decoder, in less time where the value begins at once and ends with the line."""
    raw_decode, decode = decoder.raw_decode, decoder.decode

    def read(text: str) -> Any:
        if text[0] == "{":
            value, end = raw_decode(text)
            if text[end:] in _LINE_ENDS:
                return value
        return decode(text)

    return read


# Makes the value of a JSON text whose numbers are texts with all their digits. Raises ValueError, RecursionError.
texts_with_exact_numbers = _reader(
    json.JSONDecoder(
        parse_float=without_exponent, parse_int=str, parse_constant=str, object_pairs_hook=_without_duplicates
    )
)
# Makes the value of a JSON text with exact decimals. Raises ValueError, RecursionError.
exact_numbers = _reader(
    json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_without_duplicates)
)


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogates(key) or _has_surrogates(each) for key, each in value.items())
    return isinstance(value, list) and any(map(_has_surrogates, value))
