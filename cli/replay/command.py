"""The command `tidemark replay`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import grpc

from cli.connection import Address, call_problem, server_options
from cli.console import ConfigurationProblem, Problem, standard_error, standard_output
from cli.replay.mapping import DEFAULT_COLUMNS, Event, RowMapping, RowProblem, Source
from cli.replay.progress import ReplayProgress
from cli.replay.rows import FORMATS, BadRow, FileProblem, RowFile
from cli.replay.summary import Summary
from cli.streaming import DEFAULT_PATIENCE, DEFAULT_WINDOW, Batch, ConnectionLost, UsageStream
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from generated.tidemark.v1.usage_pb2 import UsageEvent
from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS

DEFAULT_BATCH_SIZE = 500  # events in one message
MAX_BATCH_BYTES = 2 * 1024 * 1024  # of one message; well below what a server takes
EXIT_REJECTED = 3

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


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
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
@click.option("--delimiter", metavar="CHARACTER", help="Between CSV columns. [default: a comma; a tab for .tsv]")
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
    """Stream a FILE of usage events (CSV or NDJSON) to the server.

    It is safe to run twice: events are known by their ids and the calendar month (UTC) of their times, and count
    once. Exits with 0 when every row was counted (now or before), with 3 when some were rejected, with 1 when the
    server could not be reached for good.

    \b
    Example: 374 tokens of one request are 374 units of the metric tokens_in.
      tidemark replay requests.csv --customer account --metric =tokens_in \\
          --quantity ContextTokens --time TIMESTAMP --property region=region
    """
    mapping = RowMapping(
        sources={name: Source.parse(text) for name, text in columns.items() if text is not None},
        properties=_properties(properties),
        shift=timedelta(days=shift_days),
    )
    try:
        rows = RowFile(file, form, delimiter)
    except FileProblem as error:
        raise Problem(str(error)) from None
    with rows:
        problems = mapping.missing(rows.columns) if rows.columns is not None else []
        if problems:
            raise ConfigurationProblem(
                f"{file} does not have what is asked of it: {'; '.join(problems)}",
                [
                    f"its columns: {', '.join(rows.columns or ())}",
                    "name a column with --customer, --metric, --quantity, --time …, or give a constant as =VALUE",
                ],
            )
        address = Address(server, key)
        summary = Summary()
        stopped = asyncio.run(_run(rows, mapping, address, summary, batch_size, window, patience))
    summary.show(standard_output())
    if stopped is not None:
        raise stopped
    if summary.rejected:
        click.get_current_context().exit(EXIT_REJECTED)


async def _run(
    rows: RowFile,
    mapping: RowMapping,
    address: Address,
    summary: Summary,
    batch_size: int,
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

            try:
                await stream.send(_batches(rows, mapping, summary, batch_size), acknowledge)
            except ConnectionLost as error:
                return Problem(
                    f"no answer from {address.server} for {patience:g} seconds: {error}",
                    ["run the same command again when it is back: what was counted is not counted again"],
                )
            except grpc.aio.AioRpcError as error:
                return call_problem(error, address)
    if stream.resent:
        console.print(
            f"[quiet]{stream.resent:,} events were sent again after an interruption; those whose answer was lost"
            " show as duplicates, and what they fired is in the notifications[/]"
        )
    return None


async def _batches(rows: RowFile, mapping: RowMapping, summary: Summary, batch_size: int) -> AsyncIterator[Batch]:
    events: list[UsageEvent] = []
    lines: list[int] = []
    size = count = 0
    for row in rows:
        summary.rows += 1
        if isinstance(row, BadRow):
            summary.unreadable(row.line, f"the row {row.reason}")
            continue
        try:
            message = to_message(mapping.event(row))
        except RowProblem as error:
            summary.unreadable(row.line, str(error))
            continue
        events.append(message)
        lines.append(row.line)
        size += message.ByteSize()
        if len(events) >= batch_size or size >= MAX_BATCH_BYTES:
            count += 1
            yield Batch(f"batch-{count}", events, lines)
            events, lines, size = [], [], 0
    if events:
        yield Batch(f"batch-{count + 1}", events, lines)


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


def _properties(texts: tuple[str, ...]) -> Mapping[str, Source]:
    properties = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise click.BadParameter(f"{text!r}: write NAME=COLUMN or NAME==VALUE", param_hint="--property")
        properties[name] = Source.parse(source)
    return properties
