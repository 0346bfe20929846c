"""Physical lines of a text: numbered, with a limited length, and with the possibility to give lines back."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from cli.replay.source import FileEndedEarly, TextSource

MAX_LINE_LENGTH = 1 << 20  # characters; a longer line is skipped, and never held in memory as a whole


class Line(NamedTuple):
    """A line with its number, from 1. too_long: the text is only the beginning of the line."""

    number: int
    text: str
    too_long: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether the line has no characters before its end."""
        return not self.text.strip("\r\n")


class Lines:
    """The lines of a source. max_length: characters of a line."""

    def __init__(self, source: TextSource, max_length: int = MAX_LINE_LENGTH) -> None:
        self._source = source
        self._returned: deque[Line] = deque()
        self._number = 0
        self._failure: FileEndedEarly | None = None
        self.max_length = max_length

    def next(self) -> Line | None:
        """The next line; None at the end. Raises FileEndedEarly."""
        if self._returned:
            return self._returned.popleft()
        if self._failure is not None:
            raise self._failure
        try:
            return self._read()
        except FileEndedEarly as error:
            self._failure = error
            raise

    def next_or_end(self) -> Line | None:
        """The next line; None at the end, and if the file cannot be read further. `next` then raises the error."""
        try:
            return self.next()
        except FileEndedEarly:
            return None

    def peek(self) -> Line | None:
        """The next line that is not blank, which remains the next line; blank lines before it are dropped."""
        while (line := self.next()) is not None:
            if line.text.strip():
                self.give_back([line])
                return line
        return None

    def give_back(self, lines: Sequence[Line]) -> None:
        """Puts lines in front of the next line, in their order."""
        self._returned.extendleft(reversed(lines))

    def _read(self) -> Line | None:
        text = self._source.readline(self.max_length)
        if not text:
            return None
        self._number += 1
        too_long = len(text) == self.max_length and text[-1] not in "\r\n"
        rest = text
        while too_long and rest and rest[-1] not in "\r\n":
            rest = self._source.readline(self.max_length)
        return Line(self._number, text, too_long)
