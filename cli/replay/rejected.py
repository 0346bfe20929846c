"""The file of rejected rows: each as its file has it, below a line with the reason, to be mended and replayed."""

from __future__ import annotations

import os
from pathlib import Path

from cli.replay.lines import REJECTED_MARK
from cli.replay.rows import BadRow, Row

_SHOWN_REASON = 300  # characters
_LEFT_OUT = " (the row is left out here)"


class RejectedFile:
    """Writes rejected rows. header: comes before the first. length: bytes that an earlier run has acknowledged; what
    follows them is written again. count: rows that this run wrote.

    is_continued: whether rejected rows that are there may be those of an earlier run of the same replay. Raises
    OSError: FileExistsError for a file that has something else.
    """

    def __init__(self, path: Path, header: str, length: int = 0, *, is_continued: bool = False) -> None:
        self.path = path
        self.count = 0
        self._header = header
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        size = self._file.seek(0, os.SEEK_END)
        if not size:
            length = 0  # it was taken away
        if size < length or (size > 0 and not length and not (is_continued and self._is_of_same_replay())):
            self._file.close()
            raise FileExistsError(path)
        self._file.truncate(length)
        self._length = self._file.seek(length)

    def _is_of_same_replay(self) -> bool:
        """Whether an earlier run wrote it, and was ended before its first state."""
        self._file.seek(0)
        start = (_line(self._header) + REJECTED_MARK).encode("utf-8", "surrogateescape")
        return self._file.read(len(start)) == start

    @property
    def length(self) -> int:
        """Bytes so far."""
        return self._length

    def write(self, row: Row | BadRow, reason: str) -> None:
        """Adds a row. Raises OSError."""
        original = row.original if isinstance(row.original, str) else row.original()
        shown = " ".join(reason.split())[:_SHOWN_REASON]
        mark = f"{REJECTED_MARK}{row.number}, line {row.line}: {shown}{'' if original else _LEFT_OUT}\n"
        text = mark + _line(original)
        if not self._length:
            text = _line(self._header) + text
        self._length += self._file.write(text.encode("utf-8", "surrogateescape"))
        self.count += 1

    def flush(self) -> None:
        """Makes durable what is written. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; one without rows is removed. Raises OSError."""
        self._file.close()
        if not self._length:
            self.path.unlink()


def _line(text: str) -> str:
    """The text with the end of a line, which the last line of a file may lack."""
    return text if not text or text.endswith("\n") else text.rstrip("\r") + "\n"
