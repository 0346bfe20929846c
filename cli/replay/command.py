"""The command `tidemark replay`."""

import asyncio
import signal
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import grpc

from cli.client.batches import Batch
from cli.client.connection import Address
from cli.client.usage_stream import DEFAULT_PATIENCE, DEFAULT_WINDOW, ConnectionLost, UsageStream
from cli.console import ConfigurationProblem, Problem
from cli.replay.batches import Batches
from cli.replay.mapping import DEFAULT_COLUMNS, RowMapping, Source, quoted
from cli.replay.progress import ReplayProgress
from cli.replay.rows import FORMATS, FileEndedEarly, FileProblem, RowFile
from cli.replay.source import STANDARD_INPUT
from cli.replay.summary import Summary
from cli.rich_console import standard_error, standard_output
from cli.server_options import call_problem, server_options
from cli.signals import Signals
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS

DEFAULT_BATCH_SIZE = 500  # events in one message
FAREWELL = 5.0  # seconds in which what is on its way may be acknowledged after Ctrl-C
MAX_COLUMNS_LENGTH = 1_000  # characters of a header that a message shows
EXIT_REJECTED = 3

_GO_ON = "run the same command again to go on: what was counted is not counted again"

_FIELD_OPTIONS = {
    "--event-id": ("event_id", "the event's id; rows without one get an id made of their content and place"),
    "--customer": ("customer_id", "the customer's id"),
    "--subscription": ("subscription_id", "the subscription's id"),
    "--metric": ("metric_id", "the metric's id"),
    "--quantity": ("quantity", "how much was used"),
    "--cost": ("cost", "what it costs"),
    "--currency": ("currency", "the currency of the cost"),
    "--time": ("event_time", "when it was used: RFC 3339, or unix seconds or milliseconds; no zone means UTC"),
}


def _field_options(command: Any) -> Any:
    for option, (name, text) in reversed(_FIELD_OPTIONS.items()):
        usual = " or ".join(DEFAULT_COLUMNS[name])
        command = click.option(
            option, name, metavar="COLUMN", help=f"Column with {text}. Usually {usual}. =VALUE for a constant."
        )(command)
    return command


def _delimiter(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    character = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if character is not None and (len(character) != 1 or character in '"\r\n' or "\ud800" <= character <= "\udfff"):
        raise click.BadParameter("write one character, or `tab`; a quote or the end of a line cannot be one")
    return character


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_field_options
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="NAME=COLUMN",
    help="A property and its column; NAME==VALUE for a constant. May be repeated. Without it: the columns"
    " properties.NAME, and the object `properties` of NDJSON rows.",
)
@click.option("--shift-days", type=int, default=0, help="Move every event by so many days; may be negative.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="What the file is. [default: by its name]")
@click.option(
    "--delimiter",
    metavar="CHARACTER",
    callback=_delimiter,
    help="Between CSV columns; `tab` is one. [default: a comma; a tab for .tsv]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, DEFAULT_MAX_BATCH_EVENTS),
    default=DEFAULT_BATCH_SIZE,
    show_default=True,
    help="Events in one message.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 64),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="Messages on their way at once.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=DEFAULT_PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="Without an answer for so long, give up.",
)
@server_options
def replay(
    file: Path,
    properties: tuple[str, ...],
    shift_days: int,
    form: str | None,
    delimiter: str | None,
    batch_size: int,
    window: int,
    patience: float,
    server: str,
    key: str | None,
    **columns: str | None,
) -> None:
    """Stream a FILE of usage events (CSV or NDJSON, also compressed with gzip) to the server; - is standard input.

    It is safe to run twice: events are known by their ids and the calendar month (UTC) of their times, and count
    once. Exits with 0 when every row was counted (now or before), with 3 when some were rejected, with 2 when the
    options or the file cannot be used, with 1 when it stopped early, with 130 after Ctrl-C.

    \b
    Example: 374 tokens of one request are 374 units of the metric tokens_in.
      tidemark replay requests.csv --customer account --metric =tokens_in \\
          --quantity ContextTokens --time TIMESTAMP --property region=region
    """
    mapping = RowMapping(
        sources={name: Source.parse(text) for name, text in columns.items() if text is not None},
        properties=_properties(properties),
        shift=_shift(shift_days),
    )
    try:
        rows = RowFile(file, form, delimiter)
    except FileProblem as error:
        raise ConfigurationProblem(str(error), error.hints) from None
    with rows:
        _check_columns(rows, mapping)
        address = Address(server, key)
        summary = Summary()
        stopped = asyncio.run(
            _run(rows, Batches(rows, mapping, summary, batch_size), address, summary, window, patience)
        )
    summary.show(standard_output())
    if isinstance(stopped, Interrupted):
        stopped.show()
        click.get_current_context().exit(128 + stopped.number)
    if stopped is not None:
        raise stopped
    if summary.rejected:
        click.get_current_context().exit(EXIT_REJECTED)


def _check_columns(rows: RowFile, mapping: RowMapping) -> None:
    """Raises ConfigurationProblem when a CSV file does not have the columns that the mapping wants."""
    problems = mapping.missing(rows.columns) if rows.columns is not None else []
    if not problems:
        return
    hints = [
        f"its columns: {quoted(', '.join(rows.columns or ()), MAX_COLUMNS_LENGTH)[1:-1]}",
        "name a column with --customer, --metric, --quantity, --time …, or give a constant as =VALUE",
    ]
    if (other := rows.suggested_delimiter) is not None:
        name = "-" if rows.path == STANDARD_INPUT else str(rows.path)
        shown = {"\t": "tab"}.get(other, f"'{other}'")
        hints = [f"its cells seem to be separated by something else: tidemark replay {name} --delimiter {shown}"]
    raise ConfigurationProblem(f"{rows.name} does not have what is asked of it: {'; '.join(problems)}", hints)


def _shift(days: int) -> timedelta:
    try:
        return timedelta(days=days)
    except OverflowError:
        raise click.BadParameter("that is more days than there are", param_hint="--shift-days") from None


async def _run(
    rows: RowFile,
    batches: Batches,
    address: Address,
    summary: Summary,
    window: int,
    patience: float,
) -> Problem | None:
    """Replays every row; returns why it stopped early, if it did."""
    console = standard_error()
    with ReplayProgress(console, rows, summary) as progress:
        async with address.channel() as channel:
            stream = UsageStream(
                channel,
                address.metadata,
                window=window,
                patience=patience,
                on_interruption=progress.interrupted,
            )

            def acknowledge(batch: Batch, response: EvaluateUsageResponse) -> None:
                summary.acknowledge(batch, response)
                progress.moved()

            with Signals() as signals:
                sending = asyncio.create_task(stream.send(aiter(batches), acknowledge), name="replay")
                try:
                    await signals.first_or(sending)
                    if signals.first is not None and not sending.done():
                        batches.stop()
                        console.print("[warn]ending[/]; waiting for what is on its way (once more ends it at once)")
                        await signals.second_or(sending, FAREWELL)
                finally:
                    batches.stop()
                    sending.cancel()
                    (failure,) = await asyncio.gather(sending, return_exceptions=True)
            problem = _problem(failure, address, patience)
            if signals.first is not None:
                return Interrupted(signals.first, None if isinstance(failure, asyncio.CancelledError) else problem)
    if stream.resent:
        console.print(
            f"[quiet]{stream.resent:,} events were sent again after an interruption; those whose answer was lost"
            " show as duplicates, and what they fired is in the notifications[/]"
        )
    return problem


def _problem(failure: BaseException | None, address: Address, patience: float) -> Problem | None:
    """What a person reads about a replay that stopped early."""
    match failure:
        case None | asyncio.CancelledError():
            return None
        case ConnectionLost():
            return Problem(f"no answer from {address.server} for {patience:g} seconds: {failure}", [_GO_ON])
        case FileEndedEarly():
            return Problem(
                str(failure), ["what stands before that place was sent; mend the file and run the same command again"]
            )
        case grpc.aio.AioRpcError():
            problem = call_problem(failure, address)
            return Problem(problem.message, [*problem.hints, _GO_ON])
    raise failure


class Interrupted(Problem):
    """A signal ended the replay."""

    def __init__(self, number: signal.Signals, problem: Problem | None) -> None:
        told = "" if problem is None else f": {problem.message}"
        super().__init__(f"ended by {number.name} before the end of the file{told}", [_GO_ON])
        self.number = number


def _properties(texts: tuple[str, ...]) -> Mapping[str, Source]:
    properties = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise click.BadParameter(f"{text!r}: write NAME=COLUMN or NAME==VALUE", param_hint="--property")
        properties[name] = Source.parse(source)
    return properties
