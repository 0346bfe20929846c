"""Makes batches of the rows of a file. A thread reads them, so that the event loop can handle answers and signals."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from cli.replay.compiled import ToEvent
from cli.replay.mapping import RowProblem, RowSkipped, quoted
from cli.replay.row_file import RowFile
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileEndedEarly
from tidemark_client.usage.batches import MAX_BATCH_BYTES
from tidemark_client.usage.events import MAX_EVENT_BYTES

_DIGEST_BYTES = 16
# No content of one row may end the replay of the other rows.
_NO_EVENT = (RowProblem, RowSkipped, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
_TOO_LARGE = f"the event is larger than {MAX_EVENT_BYTES:,} bytes"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that gives no event. kind: the message without values; empty: the message."""

    row: Row | BadRow
    message: str
    kind: str


@dataclass
class FileBatch:
    """The events of some rows, and the rows of these that give none.

    events: in the form of the wire. rows, seconds: the row and the time of each event. read: rows in all. skipped:
    those that options leave out, by the reason. end: the number of rows of the file before the next batch. digest: of
    these. size: bytes of the events.
    """

    batch_id: str = ""
    events: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    end: int = 0
    digest: str = ""
    size: int = 0

    def absorb(self, earlier: FileBatch) -> None:
        """Adds the rows before it, which give no event."""
        self.unreadable = earlier.unreadable + self.unreadable
        self.skipped += earlier.skipped
        self.read += earlier.read


class RowsDiffer(Exception):
    """The rows that were sent before are not those of the file."""


class Batches:
    """The batches of a file.

    to_event: makes the event of a row. start: rows that are acknowledged already and not sent again, and digest: of
    these rows; empty: it is not checked. tail: the rows after the last event; complete when all batches were taken.
    """

    def __init__(
        self, rows: RowFile, to_event: ToEvent, batch_size: int, *, start: int = 0, digest: str = ""
    ) -> None:
        self._rows = rows
        self._to_event = to_event
        self._batch_size = batch_size
        self._start = start
        self._start_digest = digest
        self._stopped = False
        self._digest = blake2b(rows.identity.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        self._at = 0  # rows of the file so far
        self.tail = FileBatch()

    def stop(self) -> None:
        """Makes no further batch, and ends a read that waits for a pipe."""
        self._stopped = True
        self._rows.stop()

    async def __aiter__(self) -> AsyncIterator[FileBatch]:
        """Every batch. Raises FileEndedEarly after the last row that could be read, and RowsDiffer."""
        batches = self.all()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None and not self._stopped:
            yield batch

    def all(self) -> Iterator[FileBatch]:
        """Every batch, in this thread."""
        for number, batch in enumerate(self._with_events(), 1):
            batch.batch_id = f"batch-{number}"
            yield batch

    def _with_events(self) -> Iterator[FileBatch]:
        for batch in self._pieces():
            batch.absorb(self.tail)
            self.tail = FileBatch()
            if batch.events:
                yield batch
            else:
                self.tail = batch

    def _pieces(self) -> Iterator[FileBatch]:
        to_event, batch_size = self._to_event, self._batch_size
        batch = FileBatch()
        originals: list[str] = []
        try:
            self._skip()
            for row in self._rows:
                batch.read += 1
                if type(row.original) is str:
                    originals.append(row.original)
                if type(row) is BadRow:
                    batch.unreadable.append(Unreadable(row, f"the row {row.reason}", ""))
                else:
                    assert type(row) is Row
                    try:
                        content, seconds = to_event(row)
                    except _NO_EVENT as error:
                        _note_problem(batch, row, error)
                    else:
                        size = len(content)
                        if size > MAX_EVENT_BYTES:
                            batch.unreadable.append(Unreadable(row, _TOO_LARGE, _TOO_LARGE))
                        else:
                            batch.events.append(content)
                            batch.rows.append(row)
                            batch.seconds.append(seconds)
                            batch.size += size
                    row.values = ()  # which are freed before the batch is: that is less work for the collector
                if batch.read >= batch_size or batch.size >= MAX_BATCH_BYTES:
                    yield self._ended(batch, originals)
                    batch, originals = FileBatch(), []
        except FileEndedEarly as error:
            error.rows = self._at + batch.read
            if batch.read:
                yield self._ended(batch, originals)
            raise
        if batch.read:
            yield self._ended(batch, originals)

    def _ended(self, batch: FileBatch, originals: list[str]) -> FileBatch:
        self._note(originals)
        self._at += batch.read
        batch.end, batch.digest = self._at, self._digest.hexdigest()
        return batch

    def _note(self, originals: list[str]) -> None:
        self._digest.update("".join(originals).encode("utf-8", "surrogatepass"))

    def _skip(self) -> None:
        """Passes the rows that are acknowledged. Raises RowsDiffer."""
        for count, text in self._rows.passed(self._start):
            self._at += count
            self._note([text])
            if self._stopped:
                break
        if self._stopped:
            return
        if self._at < self._start:
            raise RowsDiffer(f"{self._at:,} rows")
        if self._start_digest and self._digest.hexdigest() != self._start_digest:
            raise RowsDiffer("other rows")


def _note_problem(batch: FileBatch, row: Row, error: Exception) -> None:
    """Notes that a row gives no event, and why."""
    if isinstance(error, RowSkipped):
        batch.skipped[str(error)] += 1
    elif isinstance(error, RowProblem):
        batch.unreadable.append(Unreadable(row, str(error), error.kind))
    else:
        kind = "the row gives no event"
        batch.unreadable.append(Unreadable(row, f"{kind}: {quoted(str(error))}", kind))
