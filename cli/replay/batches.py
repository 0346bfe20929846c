"""From a file's rows to the batches that are sent: read in a thread, so that answers and signals are heard."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from cli.client.batches import Batch
from cli.replay.mapping import Event, RowMapping, RowProblem, quoted
from cli.replay.rows import BadRow, FileEndedEarly, Row, RowFile
from cli.replay.summary import Summary
from generated.tidemark.v1.usage_pb2 import UsageEvent

MAX_BATCH_BYTES = 2 * 1024 * 1024  # of one message; well below what a server takes
MAX_EVENT_BYTES = 1024 * 1024  # of one event; a message must hold at least one


@dataclass
class _Piece:
    """What became of some rows: events with their lines, and what is wrong with the others."""

    rows: int = 0
    events: list[UsageEvent] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[tuple[int, str, str]] = field(default_factory=list)  # line, message, kind
    size: int = 0  # bytes of the events


class Batches:
    """The batches of a file. Counts its rows, and those that give no event, in `summary`."""

    def __init__(self, rows: RowFile, mapping: RowMapping, summary: Summary, batch_size: int) -> None:
        self._rows = rows
        self._mapping = mapping
        self._summary = summary
        self._batch_size = batch_size
        self._stopped = False

    def stop(self) -> None:
        """No more batches begin; one that waits for a pipe ends."""
        self._stopped = True
        self._rows.stop()

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """Every batch. Raises FileEndedEarly behind the last row that could be read."""
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
            # Nothing that stands in one row may end the replay of all others.
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
    """The contract's message of an event."""
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
