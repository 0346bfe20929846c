"""Physical lines of a text, numbered, of bounded length; lines that were read too far can be given back."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from cli.replay.source import FileEndedEarly, TextSource

MAX_LINE_LENGTH = 1 << 20  # characters; what is longer is skipped, and never kept in memory as a whole


class Line(NamedTuple):
    """A line with its number, from 1. too_long: text is its beginning only."""

    number: int
    text: str
    too_long: bool = False

    @property
    def blank(self) -> bool:
        """Whether it has nothing but its end."""
        return not self.text.strip("\r\n")


class Lines:
    """The lines of a source."""

    def __init__(self, source: TextSource) -> None:
        self._source = source
        self._returned: deque[Line] = deque()
        self._number = 0
        self._failure: FileEndedEarly | None = None

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
        """The next line; None at the end, and where the file cannot be read further, which `next` says again."""
        try:
            return self.next()
        except FileEndedEarly:
            return None

    def _read(self) -> Line | None:
        text = self._source.readline(MAX_LINE_LENGTH)
        if not text:
            return None
        self._number += 1
        too_long = len(text) == MAX_LINE_LENGTH and text[-1] not in "\r\n"
        rest = text
        while too_long and rest and rest[-1] not in "\r\n":
            rest = self._source.readline(MAX_LINE_LENGTH)
        return Line(self._number, text, too_long)

    def give_back(self, lines: Sequence[Line]) -> None:
        """Puts lines in front again, in their order."""
        self._returned.extendleft(reversed(lines))
