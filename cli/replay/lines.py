"""Physical lines of a text: numbered, with a limited length, and with the possibility to give lines back."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from cli.replay.source import FileEndedEarly, TextSource

MAX_LINE_LENGTH = 1 << 20  # characters; a longer line is skipped, and never held in memory as a whole
# Begins a line that the command writes above a rejected row. The number is that of the row in its file, so that a
# mended row gets the id that it would have got there.
REJECTED_MARK = "#tidemark-rejected: row "
_MARK = re.compile(re.escape(REJECTED_MARK) + r"([0-9]{1,18})\b")


class Line(NamedTuple):
    """A line with its number, from 1. too_long: the text is only the beginning of the line.

    row: the number of the row that begins here, where a mark above the line says so.
    """

    number: int
    text: str
    too_long: bool = False
    row: int | None = None

    @property
    def is_blank(self) -> bool:
        """Whether the line has no characters before its end."""
        return not self.text.strip("\r\n")


class Lines:
    """The lines of a source. max_length: characters of a line."""

    def __init__(self, source: TextSource, max_length: int = MAX_LINE_LENGTH) -> None:
        self._source = source
        self._returned: deque[Line] = deque()
        self._texts: list[str] = []  # complete lines that have been read
        self._at = 0  # of the next line in these
        self._has_marks = False  # whether a line of these is a mark
        self._plain: bool | None = None  # whether these can be taken together; None: not known yet
        self._rest = ""  # the beginning of a line whose end is not read yet
        self._long: str | None = None  # the beginning of a line that is longer than the limit
        self._number = 0
        self._row: int | None = None
        self._ended = False
        self._failure: FileEndedEarly | None = None
        self.max_length = max_length

    def next(self) -> Line | None:
        """The next line; None at the end. Raises FileEndedEarly."""
        if self._returned:
            return self._returned.popleft()
        while True:
            while self._at >= len(self._texts):
                if not self._fill():
                    return None
            text = self._texts[self._at]
            self._at += 1
            self._number += 1
            mark = _MARK.match(text) if self._has_marks else None
            if mark is None:
                break
            self._row = int(mark[1])
        row, self._row = self._row, None
        too_long = len(text) > self.max_length
        return Line(self._number, text[: self.max_length] if too_long else text, too_long, row)

    def plain(self, without: str = "", most: int | None = None) -> tuple[int, list[str]]:
        """The number of the line before the next lines, and these, at most `most`, which have been read already.

        No lines where one of them contains one of the characters `without`, or needs `next` for another reason.
        """
        if self._returned or self._row is not None or self._at >= len(self._texts) or not self._is_plain(without):
            return 0, []
        end = len(self._texts) if most is None else min(self._at + most, len(self._texts))
        texts = self._texts[self._at : end]
        before = self._number
        self._number += len(texts)
        self._at = end
        return before, texts

    def _is_plain(self, without: str) -> bool:
        if self._plain is None:
            joined = "".join(self._texts)
            self._plain = (
                not self._has_marks
                and not any(character in joined for character in without)
                and (len(joined) <= self.max_length or max(map(len, self._texts)) <= self.max_length)
            )
        return self._plain

    def next_or_end(self) -> Line | None:
        """The next line; None at the end, and if the file cannot be read further. `next` then raises the error."""
        try:
            return self.next()
        except FileEndedEarly:
            return None

    def peek(self) -> Line | None:
        """The next line that is not blank, which remains the next line; blank lines before it are dropped."""
        while (line := self.next()) is not None:
            if line.text.strip() or line.too_long:
                self.give_back([line])
                return line
        return None

    def sample(self, length: int) -> list[str]:
        """The first lines of those that have been read already, at most `length`; they remain the next ones."""
        texts = [line.text for line in self._returned] + self._texts[self._at : self._at + length]
        return [text for text in texts[:length] if not text.startswith(REJECTED_MARK)]

    def give_back(self, lines: Sequence[Line]) -> None:
        """Puts lines in front of the next line, in their order."""
        self._returned.extendleft(reversed(lines))

    def _fill(self) -> bool:
        """Reads the next lines, one or more; False at the end. Raises FileEndedEarly, and drops the line it cuts."""
        if self._failure is not None:
            raise self._failure
        while not self._ended:
            try:
                text = self._source.read()
            except FileEndedEarly as error:
                self._failure = error
                raise
            self._ended = not text
            texts = self._complete(text)
            if texts:
                self._texts, self._at, self._plain = texts, 0, None
                self._has_marks = REJECTED_MARK in "".join(texts)
                return True
        return False

    def _complete(self, text: str) -> list[str]:
        """The lines that are complete with this text; an empty text is the end."""
        texts = io.StringIO(self._rest + text, newline="").readlines()
        self._rest = ""
        # A line that ends with \\r may be continued by a \\n.
        if texts and not self._ended and not texts[-1].endswith("\n"):
            self._rest = texts.pop()
        if self._long is not None and (texts or self._ended):
            if texts:
                texts[0] = self._long
            else:
                texts = [self._long]
            self._long = None
        if len(self._rest) > self.max_length or (self._long is not None and self._rest):
            # Only the beginning is kept, and the last character, which may be a \\r.
            self._long = self._long or self._rest[: self.max_length] + "…"
            self._rest = self._rest[-1:]
        return texts
