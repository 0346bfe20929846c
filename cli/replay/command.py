"""The command `tidemark replay`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from cli.connection.options import server_options
from cli.console import ConfigurationProblem, Problem
from cli.replay.batches import Batches
from cli.replay.collection import rare_collection
from cli.replay.dialects import NO_QUOTE
from cli.replay.dry_run import show_events
from cli.replay.focus import CATEGORIES, COUNTED
from cli.replay.mapping import DEFAULT_COLUMNS, RowMapping
from cli.replay.numbers import COMMA, POINT
from cli.replay.options import PRESETS, Options, plan
from cli.replay.rejected import RejectedFile
from cli.replay.results import show_result
from cli.replay.row_file import FORMATS, RowFile
from cli.replay.run import Interrupted, Replay, Settled
from cli.replay.source import STANDARD_INPUT
from cli.replay.state import SUFFIX, BadState, State, StateFile, load
from cli.replay.summary import Summary
from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS
from tidemark_client.usage.stream import DEFAULT_PATIENCE

DEFAULT_BATCH_SIZE = 2_000  # events in one message
DEFAULT_WINDOW = 8  # messages in flight
EXIT_REJECTED = 3

_FIELD_OPTIONS = {
    "--event-id": (
        "event_id",
        "the id of the event. A row without one gets an id derived from its content and position",
    ),
    "--customer": ("customer_id", "the id of the customer"),
    "--subscription": ("subscription_id", "the id of the subscription"),
    "--metric": ("metric_id", "the id of the metric"),
    "--event-name": ("event_name", "the name of a raw event, which needs no metric and no quantity"),
    "--quantity": ("quantity", "the used quantity"),
    "--cost": ("cost", "the cost"),
    "--currency": ("currency", "the currency of the cost"),
    "--time": (
        "event_time",
        "the time of use: RFC 3339 and similar forms, or a number since 1970: seconds, milliseconds, microseconds or"
        " nanoseconds, by its size",
    ),
}

Command = TypeVar("Command", bound=Callable[..., Any])


def _field_options(command: Command) -> Command:
    for option, (name, text) in reversed(_FIELD_OPTIONS.items()):
        usual = " or ".join(DEFAULT_COLUMNS[name])
        command = click.option(
            option, name, metavar="COLUMN", help=f"Column of {text}. =VALUE for a constant. [default: {usual}]"
        )(command)
    return command


def _delimiter(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    character = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if character is not None and (len(character) != 1 or character in '"\r\n' or "\ud800" <= character <= "\udfff"):
        raise click.BadParameter("write one character, or `tab`; not a quote, and not the end of a line")
    return character


def _quote(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.lower() == "none":
        return NO_QUOTE
    if value is not None and (len(value) != 1 or not value.isascii() or value.isalnum() or value.isspace()):
        raise click.BadParameter("write one sign, or `none`")
    return value


def _time_zone(context: click.Context, parameter: click.Parameter, value: str | None) -> ZoneInfo | None:
    try:
        return None if value is None else ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(f"{value!r} is no time zone: write one such as Europe/Berlin") from None


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_field_options
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="NAME=COLUMN",
    help="A property and its column; NAME==VALUE for a constant. May be repeated. [default: the columns"
    " properties.NAME, and the object `properties` of NDJSON rows]",
)
@click.option("--shift-days", type=int, default=0, help="Move all times by so many days; may be negative.")
@click.option("--time-zone", callback=_time_zone, metavar="ZONE", help="Zone of times without one. [default: UTC]")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Format of the file. [default: by its content]")
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    help="Columns of a FOCUS billing export. [default: by the names of the columns]",
)
@click.option(
    "--charges",
    multiple=True,
    type=click.Choice([*CATEGORIES, "all"]),
    help=f"Category of the charges of a FOCUS export that count. May be repeated. [default: {', '.join(COUNTED)}]",
)
@click.option(
    "--delimiter",
    metavar="CHARACTER",
    callback=_delimiter,
    help="Character between CSV cells, or `tab`. [default: by the first lines]",
)
@click.option(
    "--quote", metavar="SIGN", callback=_quote, help="Sign around CSV cells, or `none`. [default: by the first line]"
)
@click.option(
    "--decimal",
    type=click.Choice([POINT, COMMA]),
    help="Decimal sign of the numbers in CSV. [default: by the first rows, where these are certain]",
)
@click.option(
    "--thousands",
    type=click.Choice([POINT, COMMA]),
    help="Sign between thousands in CSV; needs --decimal. [default: by the first rows]",
)
@click.option(
    "--source",
    default="",
    metavar="NAME",
    help="A part of derived ids, for files of which equal rows at the same place are different events.",
)
@click.option(
    "--cloudevents-mapping",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Rules for CloudEvents, as those of the HTTP port.",
)
@click.option(
    "--rejected", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows that do not count here."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Continue after the rows that are acknowledged according to this file, and keep it up to date.",
)
@click.option("--resume", is_flag=True, help=f"The same, with a state beside the file: FILE{SUFFIX}.")
@click.option("--dry-run", is_flag=True, help="Send nothing: show the first events, and what would be rejected here.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
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
    help="Messages in flight at once.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=DEFAULT_PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long without an answer.",
)
@server_options
def replay(**arguments: Any) -> None:
    """Stream a FILE of usage events to the server. - is standard input.

    The file is CSV, NDJSON, a JSON array, CloudEvents in JSON, Parquet or a FOCUS billing export, also compressed
    with gzip or zstd. It is safe to replay it twice: the id of an event and the calendar month (UTC) of its time
    identify the event, and it counts once.

    Exit codes: 0 every row is counted, now or before; 1 it stopped early; 2 the options or the file cannot be used; 3
    some rows were rejected; 130 Ctrl-C ended it.

    \b
    Example: a request with 374 tokens is 374 units of the metric tokens_in.
      tidemark replay requests.csv --customer account --metric =tokens_in \\
          --quantity ContextTokens --time TIMESTAMP --property region=region
    """
    columns = {name: arguments.pop(name) for name, _ in _FIELD_OPTIONS.values()}
    options = Options(columns=columns, **arguments)
    if options.thousands is not None and options.decimal in (None, options.thousands):
        raise click.BadParameter("it needs --decimal, with the other sign", param_hint="--thousands")
    mapping = options.mapping()
    with rare_collection(), options.open_file(mapping) as rows:
        code = _replay(options, rows, mapping)
    click.get_current_context().exit(code)


def _replay(options: Options, rows: RowFile, mapping: RowMapping) -> int:
    planned = plan(options, rows, mapping)
    summary = Summary()
    if options.dry_run:
        batches = Batches(rows, planned.to_event, options.batch_size)
        show_events(batches, summary, quietly=options.as_json)
        show_result(summary, planned, rows, options)
        return EXIT_REJECTED if summary.rejected else 0
    state_path = _state_path(options)
    state = State(options=options.digest) if state_path is None else _loaded(state_path, options)
    summary.earlier = state.rows
    with _rejected_file(options, rows, state, is_continued=state_path is not None) as rejected:
        state_file = None if state_path is None else StateFile(state_path)
        settled = Settled(summary, rejected, state_file, state)
        batches = Batches(rows, planned.to_event, options.batch_size, start=state.rows, digest=state.digest)
        run = Replay(options.address, options.window, options.patience)
        problem = asyncio.run(run.send(rows, batches, settled))
        try:
            settled.save()
        except OSError as error:
            problem = problem or Problem(f"{error.filename or 'a file'} cannot be written: {error.strerror}")
    show_result(summary, planned, rows, options)
    if isinstance(problem, Interrupted):
        problem.show()
        return 128 + problem.number
    if problem is not None:
        raise problem
    return EXIT_REJECTED if summary.rejected else 0


def _state_path(options: Options) -> Path | None:
    if options.state is not None or not options.resume:
        return options.state
    if options.file == STANDARD_INPUT:
        raise click.BadParameter(
            "standard input has no place for a state: name one with --state", param_hint="--resume"
        )
    return options.file.with_name(options.file.name + SUFFIX)


def _loaded(path: Path, options: Options) -> State:
    try:
        return load(path, options.digest)
    except BadState as error:
        raise ConfigurationProblem(
            str(error), ["name another file with --state, or remove it to send every row again"]
        ) from None


@contextlib.contextmanager
def _rejected_file(
    options: Options, rows: RowFile, state: State, *, is_continued: bool
) -> Iterator[RejectedFile | None]:
    path = options.rejected
    if path is None:
        yield None
        return
    if options.file != STANDARD_INPUT and path.exists() and path.samefile(options.file):
        raise click.BadParameter("it is the file of the rows", param_hint="--rejected")
    try:
        file = RejectedFile(path, rows.header, state.rejected_bytes, is_continued=is_continued)
    except FileExistsError:
        raise ConfigurationProblem(
            f"{path} exists and is not empty; what is in it is kept", ["name a new file with --rejected"]
        ) from None
    except OSError as error:
        raise ConfigurationProblem(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield file
    finally:
        file.close()
