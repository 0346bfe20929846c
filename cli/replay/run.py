"""Sends the batches of a file, until the file or a signal ends the replay."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from rich.console import Console

from cli.client.connection import Address
from cli.connection.options import call_problem
from cli.console import ConfigurationProblem, Problem
from cli.replay.batches import Batches, FileBatch, RowsDiffer
from cli.replay.progress import ReplayProgress
from cli.replay.rejected import RejectedFile
from cli.replay.row_file import RowFile
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileEndedEarly
from cli.replay.state import State, StateFile
from cli.replay.summary import Summary
from cli.rich_console import standard_error
from cli.serving.signals import SignalWaiter
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from tidemark_client.errors import ConnectionLost, TidemarkError
from tidemark_client.usage.stream import UsageStream

FAREWELL = 5.0  # seconds that batches in flight may take after a signal

_REPEAT = "run the same command again to continue: events that are counted already do not count again"


class Interrupted(Problem):
    """A signal ended the replay. problem: what ended it at the same time, if anything did."""

    def __init__(self, number: signal.Signals, problem: Problem | None) -> None:
        cause = "" if problem is None else f": {problem.message}"
        super().__init__(f"{number.name} ended the replay before the end of the file{cause}", [_REPEAT])
        self.number = number


class Settled:
    """What a batch leaves behind when the server has answered it: counts, rejected rows, and the state.

    rejected: the file of rejected rows; None: they are counted only. state_file: None: the state is not saved.
    """

    def __init__(
        self, summary: Summary, rejected: RejectedFile | None, state_file: StateFile | None, state: State
    ) -> None:
        self.summary = summary
        self._rejected = rejected
        self._state_file = state_file
        self._state = state

    def acknowledge(self, batch: FileBatch, outcome: UsageOutcome) -> None:
        """Notes the answer to a batch. Raises OSError."""
        self._settle(batch, self.summary.acknowledge(batch, outcome))

    def end(self, tail: FileBatch) -> None:
        """Notes the rows after the last event of the file. Raises OSError."""
        self.summary.settle(tail)
        self._settle(tail, [])

    def _settle(self, batch: FileBatch, refused: list[tuple[Row, str]]) -> None:
        if self._rejected is not None:
            written: list[tuple[Row | BadRow, str]] = [(bad.row, bad.message) for bad in batch.unreadable]
            written += refused
            for row, reason in sorted(written, key=lambda each: each[0].number):
                self._rejected.write(row, reason)
        if batch.read:
            self._state = replace(self._state, rows=batch.end, digest=batch.digest)
            if self._state_file is not None and self._state_file.is_due:
                self.save()

    def save(self) -> None:
        """Saves the state, after the rejected rows that belong to it. Raises OSError."""
        if self._rejected is not None:
            self._rejected.flush()
            self._state = replace(self._state, rejected_bytes=self._rejected.length)
        if self._state_file is not None:
            self._state_file.save(self._state)


@dataclass(frozen=True)
class Replay:
    """Sends batches to a server. window: batches in flight at once. patience: seconds without an answer."""

    address: Address
    window: int
    patience: float

    async def send(self, rows: RowFile, batches: Batches, settled: Settled) -> Problem | None:
        """Sends every batch; returns why the replay stopped early, if it did."""
        console, summary = standard_error(), settled.summary
        started = time.monotonic()
        with ReplayProgress(console, rows, summary) as progress:

            def acknowledge(batch: FileBatch, outcome: UsageOutcome) -> None:
                settled.acknowledge(batch, outcome)
                summary.seconds = time.monotonic() - started
                progress.on_acknowledgement()

            async with self.address.channel() as channel:
                stream = UsageStream(
                    channel,
                    self.address.metadata,
                    window=self.window,
                    patience=self.patience,
                    on_interruption=progress.on_interruption,
                )
                with SignalWaiter() as signals:
                    counted = _counted(batches, summary)
                    failure = await _send(stream, batches, counted, acknowledge, signals, console)
                    if failure is None or isinstance(failure, FileEndedEarly):
                        summary.read += batches.tail.read
                        settled.end(batches.tail)
                    summary.seconds = time.monotonic() - started
                problem = self._problem(failure)
                if signals.first is not None:
                    return Interrupted(signals.first, problem)
        if stream.resent:
            console.print(
                f"[quiet]{stream.resent:,} events were sent again after an interruption. Events whose first answer"
                " was lost count as duplicates; their transitions are in the notifications[/]"
            )
        return problem

    def _problem(self, failure: BaseException | None) -> Problem | None:
        """The Problem of a replay that stopped early. Raises an error that is not expected."""
        match failure:
            case None | asyncio.CancelledError():
                return None
            case ConnectionLost():
                return Problem(
                    f"no answer from {self.address.server} for {self.patience:g} seconds: {failure.details()}",
                    [_REPEAT],
                )
            case FileEndedEarly():
                return Problem(
                    f"{failure}; it ended after row {failure.rows:,}",
                    ["the rows before the error were sent; repair the file and run this command again"],
                )
            case RowsDiffer():
                return ConfigurationProblem(
                    f"the state is of another file: this one has {failure} where the state ends",
                    ["name another file with --state, or remove it to send every row again"],
                )
            case TidemarkError():
                problem = call_problem(failure, self.address)
                return Problem(problem.message, [*problem.hints, _REPEAT])
            case OSError():
                return Problem(f"{failure.filename or 'a file'} cannot be written: {failure.strerror}", [_REPEAT])
        raise failure


async def _counted(batches: Batches, summary: Summary) -> AsyncIterator[FileBatch]:
    """The batches, counted as they are taken."""
    async for batch in batches:
        summary.read += batch.read
        summary.sent += len(batch.events)
        yield batch


async def _send(
    stream: UsageStream,
    batches: Batches,
    counted: AsyncIterator[FileBatch],
    acknowledge: Callable[[FileBatch, UsageOutcome], None],
    signals: SignalWaiter,
    console: Console,
) -> BaseException | None:
    """Sends the batches until a signal; returns the error that ended it, CancelledError after a signal."""
    sending = asyncio.create_task(stream.send(counted, acknowledge), name="replay")
    try:
        await signals.first_or_end(sending)
        if signals.first is not None and not sending.done():
            batches.stop()
            console.print("[warn]ending[/] after the batches in flight (a second signal ends it at once)")
            await signals.second_or_end(sending, FAREWELL)
    finally:
        batches.stop()
        sending.cancel()
        (failure,) = await asyncio.gather(sending, return_exceptions=True)
    return failure
