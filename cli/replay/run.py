"""Sends the batches of a file, until the file or a signal ends the replay."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from cli.client.connection import Address
from cli.connection.options import call_problem
from cli.console import Problem
from cli.replay.batches import Batches
from cli.replay.progress import ReplayProgress
from cli.replay.row_file import RowFile
from cli.replay.source import FileEndedEarly
from cli.replay.summary import Summary
from cli.rich_console import standard_error
from cli.serving.signals import SignalWaiter
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from tidemark_client.errors import ConnectionLost, TidemarkError
from tidemark_client.usage.batches import Batch
from tidemark_client.usage.stream import UsageStream

FAREWELL = 5.0  # seconds that batches in flight may take after a signal

_REPEAT = "run the same command again to continue: events that are counted already do not count again"


class Interrupted(Problem):
    """A signal ended the replay. problem: what ended it at the same time, if anything did."""

    def __init__(self, number: signal.Signals, problem: Problem | None) -> None:
        cause = "" if problem is None else f": {problem.message}"
        super().__init__(f"{number.name} ended the replay before the end of the file{cause}", [_REPEAT])
        self.number = number


@dataclass(frozen=True)
class Replay:
    """Sends batches to a server. window: batches in flight at once. patience: seconds without an answer."""

    address: Address
    window: int
    patience: float

    async def send(self, rows: RowFile, batches: Batches, summary: Summary) -> Problem | None:
        """Sends every batch; returns why the replay stopped early, if it did."""
        console = standard_error()
        with ReplayProgress(console, rows, summary) as progress:

            def acknowledge(batch: Batch, outcome: UsageOutcome) -> None:
                summary.acknowledge(batch, outcome)
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
                    failure = await _send(stream, batches, acknowledge, signals, console)
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
                    str(failure), ["the rows before the error were sent; repair the file and run this command again"]
                )
            case TidemarkError():
                problem = call_problem(failure, self.address)
                return Problem(problem.message, [*problem.hints, _REPEAT])
        raise failure


async def _send(
    stream: UsageStream,
    batches: Batches,
    acknowledge: Callable[[Batch, UsageOutcome], None],
    signals: SignalWaiter,
    console: Console,
) -> BaseException | None:
    """Sends the batches until a signal; returns the error that ended it, CancelledError after a signal."""
    sending = asyncio.create_task(stream.send(aiter(batches), acknowledge), name="replay")
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
