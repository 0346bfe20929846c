"""The input of a replay: a file, a pipe or standard input, unpacked and decoded to text."""

import codecs
import errno
import gzip
import io
import os
import select
import stat
import threading
import zlib
from pathlib import Path

STANDARD_INPUT = Path("-")
_OPEN_ALREADY = (STANDARD_INPUT, Path("/dev/stdin"))  # the kernel cannot open /dev/stdin again if it is a socket
POLL_INTERVAL = 0.2  # seconds; a read that waits for a pipe checks at this interval whether it must stop
HEAD_BYTES = 4096  # from which the encoding of a file is guessed
BUFFER_BYTES = 1 << 16
MAGIC_BYTES = 8  # of a pipe: enough for every signature below; a pipe may bring no more at first
BROKEN = "\udcff"  # replaces each byte that the encoding cannot decode

_GZIP = b"\x1f\x8b"
# Signatures of formats that are refused, and the command that makes text of each.
_REFUSED = (
    (b"\x28\xb5\x2f\xfd", "zstd compressed", "zstdcat {file} | tidemark replay -"),
    (b"BZh", "bzip2 compressed", "bzcat {file} | tidemark replay -"),
    (b"\xfd7zXZ\x00", "xz compressed", "xzcat {file} | tidemark replay -"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "unzip -p {file} | tidemark replay -, or export it as CSV"),
    (b"PAR1", "a Parquet file", "export it as CSV or NDJSON"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNREADABLE = (OSError, EOFError, zlib.error)  # gzip.BadGzipFile is an OSError

codecs.register_error("tidemark.broken", lambda error: (BROKEN, getattr(error, "end", 1)))


class FileProblem(Exception):
    """The whole file cannot be replayed; the message says why, the hints what to do."""

    def __init__(self, message: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.hints = hints


class FileEndedEarly(FileProblem):
    """A file that could not be read to its end; the rows before the error were read."""


class _Input(io.RawIOBase):
    """The bytes of a file descriptor. A pipe is at its end after `stop`."""

    def __init__(self, path: Path) -> None:
        self._owned = path not in _OPEN_ALREADY
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if self._owned else 0
        self._stopped = threading.Event()
        status = os.fstat(self._descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self.regular = stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.regular else None
        self.position = 0  # bytes returned so far
        self._head = self._start(HEAD_BYTES if self.regular else MAGIC_BYTES)
        self.head = self._head

    def _start(self, enough: int) -> bytes:
        """The first bytes; fewer than `enough` only if there are no more."""
        head = b""
        while len(head) < enough and (more := self._read(HEAD_BYTES)):
            head += more
        return head

    def _read(self, size: int) -> bytes:
        if not self.regular:
            # A thread that blocks in a read cannot be ended, and the process could not end before it.
            while not select.select([self._descriptor], [], [], POLL_INTERVAL)[0]:
                if self._stopped.is_set():
                    return b""
        return os.read(self._descriptor, size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io's stub wants any buffer
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            data = self._read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def stop(self) -> None:
        """Ends a read that waits for a pipe."""
        self._stopped.set()

    def close(self) -> None:
        if not self.closed and self._owned:
            os.close(self._descriptor)
        super().close()


class _Unpacked(io.RawIOBase):
    """The content of a gzip file. Of a truncated file it returns everything before its end."""

    def __init__(self, packed: io.BufferedReader) -> None:
        self._packed = packed
        self._gzip = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io's stub wants any buffer
        data = self._gzip.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._gzip.close()
            self._packed.close()
        super().close()


class TextSource:
    """The text of a file; line ends stay unchanged.

    name: of the file, for messages. size: bytes in all, None if it is not known. Bytes that the encoding cannot
    decode become BROKEN. Raises FileProblem.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else str(path)
        try:
            self._input = _Input(path)
            binary: io.BufferedReader = io.BufferedReader(self._input, BUFFER_BYTES)
            head = self._input.head
            if head.startswith(_GZIP):
                binary = io.BufferedReader(_Unpacked(binary), BUFFER_BYTES)
                head = binary.peek(HEAD_BYTES)[:HEAD_BYTES]
        except _UNREADABLE as error:
            raise FileProblem(f"{self.name} cannot be read: {reason(error)}", _hints(path, error)) from None
        self.size = self._input.size
        for magic, what, command in _REFUSED:
            if head.startswith(magic):
                self._input.close()
                shown = "FILE" if path == STANDARD_INPUT else str(path)
                raise FileProblem(f"{self.name} is {what}", (command.format(file=shown),))
        self.empty = not head
        # Line ends are not translated, because a CSV cell may contain some. A broken byte spoils its own row only.
        self._text = io.TextIOWrapper(binary, encoding_of(head), errors="tidemark.broken", newline="")

    @property
    def position(self) -> int:
        """How many bytes of the file have been read."""
        return self._input.position

    def readline(self, limit: int) -> str:
        """The next line, or the next `limit` characters of it; empty at the end. Raises FileEndedEarly."""
        try:
            return self._text.readline(limit)
        except _UNREADABLE as error:
            raise FileEndedEarly(f"{self.name} cannot be read to its end: {reason(error)}") from None

    def stop(self) -> None:
        """Ends a read that waits for a pipe; the source is at its end after that."""
        self._input.stop()

    def close(self) -> None:
        """Closes the file; standard input stays open."""
        self._text.close()


def encoding_of(head: bytes) -> str:
    """Guesses the encoding from the first bytes: by a byte order mark, or by the zero bytes of letters in UTF-16."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    pairs = len(head) // 2
    for encoding, zero in (("utf-16-le", 1), ("utf-16-be", 0)):
        if pairs >= 2 and head[zero : 2 * pairs : 2].count(0) > 0.6 * pairs and 0 not in head[1 - zero : 8 : 2]:
            return encoding
    return "utf-8"


def reason(error: Exception) -> str:
    """The reason of an error that occurred while reading, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError):
        return "it is compressed with gzip and truncated"
    return f"it is compressed with gzip and damaged ({error})"


def _hints(path: Path, error: Exception) -> tuple[str, ...]:
    if isinstance(error, FileNotFoundError):
        return ("name a file, or - for standard input",)
    if isinstance(error, IsADirectoryError):
        return (f"name a file in it, or pipe its files: cat {path}/*.ndjson | tidemark replay -",)
    return ()
