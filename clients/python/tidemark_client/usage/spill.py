"""Files of usage that no server has taken yet: records of whole messages, in segments that are deleted one by one.

A record is its length, a checksum, and the encoded events. A segment is deleted when each of its records is
acknowledged, so after a restart some records may be sent again; their events count once all the same. `append`
returns when the records are on the disk. A record that was cut by a crash is left out, with what follows it in its
segment.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

try:
    import fcntl
except ImportError:  # on Windows nothing keeps two writers from one folder
    fcntl = None  # type: ignore[assignment]

SEGMENT_BYTES = 8 * 1024 * 1024
SUFFIX = ".usage"

_HEADER = struct.Struct(">II")  # length and checksum of the content
_LENGTH = struct.Struct(">I")

logger = logging.getLogger("tidemark_client.usage")


class SpillFull(Exception):
    """The files have reached their bound."""


class SpillInUse(Exception):
    """Another writer uses the folder."""


class Record(NamedTuple):
    """Where the events of one message stand."""

    segment: Segment
    offset: int  # of the content
    length: int
    events: int


@dataclass
class Segment:
    """A file. live: records that are not acknowledged."""

    path: Path
    size: int = 0
    live: int = 0
    is_current: bool = False


class SpillFolder:
    """The files of one writer. Threads may call it, one at a time for `append`."""

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises OSError, SpillInUse."""
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._mutex = threading.Lock()
        self._lock = (self._folder / "lock").open("w")
        self._claim()
        # Those of earlier writers count as one record each until they are read. A writer may append before that: its
        # own segments follow, and are not read as earlier ones.
        self._earlier = [Segment(path, path.stat().st_size, live=1) for path in self._files()]
        self._segments = list(self._earlier)
        self._number = max((_number(segment.path) for segment in self._earlier), default=0)
        self._file: IO[bytes] | None = None

    def _claim(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise SpillInUse(f"another writer uses {self._folder}: give each writer a folder of its own") from None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(segment.size for segment in self._segments)

    def load(self) -> list[Record]:
        """The records of earlier writers, the oldest first. Raises OSError."""
        found: list[Record] = []
        for segment in self._earlier:
            records = _records(segment)
            found += records
            with self._mutex:
                segment.live = len(records)
                if not records:
                    self._delete(segment)
        self._earlier = []
        return found

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))

    def append(self, messages: Sequence[Sequence[bytes]]) -> list[Record]:
        """Writes messages, and returns when they are on the disk. Raises SpillFull before it writes; OSError."""
        contents = [_content(events) for events in messages]
        if self.size + sum(_HEADER.size + len(content) for content in contents) > self._max_bytes:
            raise SpillFull(f"the files in {self._folder} have {self.size:,} bytes, at most {self._max_bytes:,}")
        segment, file = self._current()
        written = []
        for content, events in zip(contents, messages, strict=True):
            file.write(_HEADER.pack(len(content), zlib.crc32(content)))
            file.write(content)
            written.append(Record(segment, segment.size + _HEADER.size, len(content), len(events)))
            segment.size += _HEADER.size + len(content)
        file.flush()
        os.fsync(file.fileno())
        with self._mutex:
            segment.live += len(written)
        return written

    def read(self, record: Record) -> list[bytes]:
        """The events of a record. Raises OSError."""
        with record.segment.path.open("rb") as file:
            file.seek(record.offset)
            return _events(file.read(record.length))

    def done(self, record: Record) -> None:
        """Forgets an acknowledged record, and its segment with its last one."""
        with self._mutex:
            segment = record.segment
            segment.live -= 1
            if segment.live == 0 and not segment.is_current:
                self._delete(segment)

    def close(self) -> None:
        """Ends the use of the folder."""
        with self._mutex:
            self._end_current()
            self._lock.close()

    def _current(self) -> tuple[Segment, IO[bytes]]:
        """The segment that is written."""
        if self._file is not None and self._segments[-1].size < self._segment_bytes:
            return self._segments[-1], self._file
        with self._mutex:
            self._end_current()
            self._number += 1
            segment = Segment(self._folder / f"{self._number:012}{SUFFIX}", is_current=True)
            self._file = segment.path.open("xb")
            self._segments.append(segment)
        _sync_folder(self._folder)
        return segment, self._file

    def _end_current(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        segment = self._segments[-1]
        segment.is_current = False
        if segment.live == 0:
            self._delete(segment)

    def _delete(self, segment: Segment) -> None:
        self._segments.remove(segment)
        segment.path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    """The number of a file of a segment; 0 for a file of another name."""
    try:
        return int(path.stem)
    except ValueError:
        return 0


def _content(events: Sequence[bytes]) -> bytes:
    parts = [_LENGTH.pack(len(events))]
    for event in events:
        parts += (_LENGTH.pack(len(event)), event)
    return b"".join(parts)


def _events(content: bytes) -> list[bytes]:
    (count,) = _LENGTH.unpack_from(content)
    found, at = [], _LENGTH.size
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        found.append(content[at : at + length])
        at += length
    return found


def _records(segment: Segment) -> list[Record]:
    """The records of a file, up to the first that is not whole."""
    found: list[Record] = []
    with segment.path.open("rb") as file:
        at = 0
        while header := file.read(_HEADER.size):
            if len(header) == _HEADER.size:
                length, checksum = _HEADER.unpack(header)
                content = file.read(length) if length <= segment.size else b""
                if len(content) == length >= _LENGTH.size and zlib.crc32(content) == checksum:
                    (count,) = _LENGTH.unpack_from(content)
                    found.append(Record(segment, at + _HEADER.size, length, count))
                    at += _HEADER.size + length
                    continue
            logger.error("%s is damaged after %d bytes; what follows is not sent", segment.path, at)
            segment.path.with_suffix(".damaged").write_bytes(segment.path.read_bytes()[at:])
            break
    return found


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder durable, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
