"""The input of a replay: a file, a pipe or standard input, unpacked and decoded to text."""

import codecs
import errno
import io
import os
import select
import stat
import threading
from pathlib import Path

from cli.replay.unpacking import UNPACKING_ERRORS, NoUnpacker, Packing, Unpacked, packing_of

STANDARD_INPUT = Path("-")
_OPEN_ALREADY = (STANDARD_INPUT, Path("/dev/stdin"))  # the kernel cannot open /dev/stdin again if it is a socket
POLL_INTERVAL = 0.2  # seconds; a read that waits for a pipe checks at this interval whether it must stop
HEAD_BYTES = 4096  # from which the encoding of a file is guessed
BUFFER_BYTES = 1 << 16
MAGIC_BYTES = 8  # of a pipe: enough for every signature below; a pipe may bring no more at first
BROKEN = "\udcff"  # replaces each byte that the encoding cannot decode

PIECE_BYTES = 1 << 18  # that are decoded at once
PARQUET = b"PAR1"
# Signatures of formats that are refused, and the command that makes text of each.
_REFUSED = (
    (b"BZh", "bzip2 compressed", "bzcat {file} | tidemark replay -"),
    (b"\xfd7zXZ\x00", "xz compressed", "xzcat {file} | tidemark replay -"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "unzip -p {file} | tidemark replay -, or export it as CSV"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNREADABLE: tuple[type[Exception], ...] = (OSError, *UNPACKING_ERRORS)


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    """A surrogate for each byte, as `surrogateescape` has them, so that a rejected row is written back unchanged."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    broken = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) if byte > 0x7F else BROKEN for byte in broken), error.end


codecs.register_error("tidemark.broken", _keep_bytes)


class FileProblem(Exception):
    """The whole file cannot be replayed; the message says why, the hints what to do."""

    def __init__(self, message: str, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.hints = hints


class FileEndedEarly(FileProblem):
    """A file that could not be read to its end. rows: how many complete rows came before the error."""

    rows = 0


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

    def fileno(self) -> int:
        return self._descriptor

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


class TextSource:
    """The text of a file; line ends stay unchanged.

    name: of the file, for messages. size: bytes in all, None if it is not known. parquet: it is a Parquet file, and
    has no text. beginning: of its text, without blanks. Bytes that the encoding cannot decode become surrogates.
    Raises FileProblem.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else str(path)
        shown = "FILE" if path == STANDARD_INPUT else str(path)
        packing: Packing | None = None
        try:
            self._input = _Input(path)
            binary: io.BufferedReader = io.BufferedReader(self._input, BUFFER_BYTES)
            head = self._input.head
            packing = packing_of(head)
            if packing is not None:
                binary = io.BufferedReader(Unpacked(binary, packing), BUFFER_BYTES)
                head = binary.peek(HEAD_BYTES)[:HEAD_BYTES]
        except NoUnpacker as error:
            self._input.close()
            hints = (error.command, f"or unpack it: {error.tool} {shown} | tidemark replay -")
            raise FileProblem(f"{self.name} cannot be read: {error}", hints) from None
        except _UNREADABLE as error:
            raise FileProblem(f"{self.name} cannot be read: {reason(error, packing)}", _hints(path, error)) from None
        self._packing = packing
        self.size = self._input.size
        self.regular = self._input.regular
        for magic, what, command in _REFUSED:
            if head.startswith(magic):
                self._input.close()
                raise FileProblem(f"{self.name} is {what}", (command.format(file=shown),))
        self.empty = not head
        self.parquet = head.startswith(PARQUET)
        self.packed = packing is not None
        self._binary = binary
        encoding = encoding_of(head)
        # A broken byte spoils its own row only.
        self._decoder = codecs.getincrementaldecoder(encoding)("tidemark.broken")
        self.beginning = codecs.getincrementaldecoder(encoding)("ignore").decode(head).lstrip()

    @property
    def position(self) -> int:
        """How many bytes of the file have been read."""
        return self._input.position

    def read(self) -> str:
        """The next piece of the text, as long as is there; empty at the end. Raises FileEndedEarly."""
        try:
            while data := self._binary.read1(PIECE_BYTES):
                if text := self._decoder.decode(data):
                    return text
        except _UNREADABLE as error:
            why = reason(error, self._packing)
            raise FileEndedEarly(f"{self.name} cannot be read to its end: {why}") from None
        return self._decoder.decode(b"", True)

    def open_again(self) -> io.BufferedIOBase:
        """The bytes of a file that is not packed, from its beginning, for a reader that goes to and fro."""
        if not self.regular or self.packed:
            what = "compressed" if self.packed else "a pipe"
            raise FileProblem(f"{self.name} is a Parquet file, and {what}", ("save it as a file, and name it",))
        descriptor = os.dup(self._input.fileno())
        file = os.fdopen(descriptor, "rb")
        file.seek(0)
        return file

    def stop(self) -> None:
        """Ends a read that waits for a pipe; the source is at its end after that."""
        self._input.stop()

    def close(self) -> None:
        """Closes the file; standard input stays open."""
        self._binary.close()


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


def reason(error: Exception, packing: Packing | None) -> str:
    """The reason of an error that occurred while reading, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    packed = "compressed" if packing is None else f"compressed with {packing.name}"
    if isinstance(error, EOFError):
        return f"it is {packed} and truncated"
    return f"it is {packed} and damaged ({error})"


def _hints(path: Path, error: Exception) -> tuple[str, ...]:
    if isinstance(error, FileNotFoundError):
        return ("name a file, or - for standard input",)
    if isinstance(error, IsADirectoryError):
        return (f"name a file in it, or pipe its files: cat {path}/*.ndjson | tidemark replay -",)
    return ()
