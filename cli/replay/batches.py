"""Makes batches of the rows of a file. A thread reads them, so that the event loop can handle answers and signals."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from cli.replay.mapping import Event, RowMapping, RowProblem, quoted
from cli.replay.row_file import RowFile
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileEndedEarly
from cli.replay.summary import Summary
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tidemark_client.usage.batches import Batch

MAX_BATCH_BYTES = 2 * 1024 * 1024  # of one message; a server accepts 4 MiB by default
MAX_EVENT_BYTES = 1024 * 1024  # of one event


@dataclass
class _Piece:
    """Some rows: the events with their lines, and the problems of the rows that give no event."""

    rows: int = 0
    events: list[UsageEvent] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[tuple[int, str, str]] = field(default_factory=list)  # line, message, kind
    size: int = 0  # bytes of the events


class Batches:
    """The batches of a file. Counts its rows in `summary`, and the rows that give no event."""

    def __init__(self, rows: RowFile, mapping: RowMapping, summary: Summary, batch_size: int) -> None:
        self._rows = rows
        self._mapping = mapping
        self._summary = summary
        self._batch_size = batch_size
        self._stopped = False

    def stop(self) -> None:
        """Makes no further batch, and ends a read that waits for a pipe."""
        self._stopped = True
        self._rows.stop()

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """Every batch. Raises FileEndedEarly after the last row that could be read."""
        pieces = self._pieces()
        count = 0
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None and not self._stopped:
            self._summary.rows += piece.rows
            for line, message, kind in piece.problems:
                self._summary.unreadable(line, message, kind)
            if piece.events:
                count += 1
                yield Batch(f"batch-{count}", piece.events, piece.lines)

    def _pieces(self) -> Iterator[_Piece]:
        piece = _Piece()
        try:
            for row in self._rows:
                piece.rows += 1
                self._add(piece, row)
                if piece.rows >= self._batch_size or piece.size >= MAX_BATCH_BYTES:
                    yield piece
                    piece = _Piece()
        except FileEndedEarly:
            if piece.rows:
                yield piece
            raise
        if piece.rows:
            yield piece

    def _add(self, piece: _Piece, row: Row | BadRow) -> None:
        if isinstance(row, BadRow):
            piece.problems.append((row.line, f"the row {row.reason}", ""))
            return
        try:
            message = to_message(self._mapping.event(row))
        except RowProblem as error:
            piece.problems.append((row.line, str(error), error.kind))
            return
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            # No content of one row may end the replay of the other rows.
            kind = "the row gives no event"
            piece.problems.append((row.line, f"{kind}: {quoted(str(error))}", kind))
            return
        size = message.ByteSize()
        if size > MAX_EVENT_BYTES:
            kind = f"the event is larger than {MAX_EVENT_BYTES:,} bytes"
            piece.problems.append((row.line, kind, kind))
            return
        piece.events.append(message)
        piece.lines.append(row.line)
        piece.size += size


def to_message(event: Event) -> UsageEvent:
    """The event as a message of the contract."""
    message = UsageEvent(
        event_id=event.event_id,
        customer_id=event.customer_id,
        subscription_id=event.subscription_id,
        metric_id=event.metric_id,
        quantity=event.quantity,
        cost=event.cost,
        currency=event.currency,
        properties=event.properties,
    )
    message.event_time.FromDatetime(event.event_time)
    return message
