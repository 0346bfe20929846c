"""The command `tidemark replay`."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.client.connection import Address
from cli.connection.options import server_options
from cli.console import ConfigurationProblem
from cli.replay.batches import Batches
from cli.replay.mapping import DEFAULT_COLUMNS, FieldSource, RowMapping, quoted
from cli.replay.row_file import FORMATS, RowFile
from cli.replay.run import Interrupted, Replay
from cli.replay.source import STANDARD_INPUT, FileProblem
from cli.replay.summary import Summary
from cli.rich_console import standard_output
from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS
from tidemark_client.usage.stream import DEFAULT_PATIENCE, DEFAULT_WINDOW

DEFAULT_BATCH_SIZE = 500  # events in one message
MAX_COLUMNS_LENGTH = 1_000  # characters of a header that a message shows
EXIT_REJECTED = 3

_FIELD_OPTIONS = {
    "--event-id": (
        "event_id",
        "the id of the event. A row without one gets an id derived from its content and position",
    ),
    "--customer": ("customer_id", "the id of the customer"),
    "--subscription": ("subscription_id", "the id of the subscription"),
    "--metric": ("metric_id", "the id of the metric"),
    "--quantity": ("quantity", "the used quantity"),
    "--cost": ("cost", "the cost"),
    "--currency": ("currency", "the currency of the cost"),
    "--time": ("event_time", "the time of use: RFC 3339, or unix seconds or milliseconds. No zone means UTC"),
}

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Options:
    """The options of `tidemark replay`, as click names and checks them. columns: the options of fields, by field."""

    file: Path
    columns: Mapping[str, str | None]
    properties: tuple[str, ...]
    shift_days: int
    form: str | None
    delimiter: str | None
    batch_size: int
    window: int
    patience: float
    address: Address

    def mapping(self) -> RowMapping:
        """How rows become events. Raises BadParameter."""
        return RowMapping(
            sources={name: FieldSource.parse(text) for name, text in self.columns.items() if text is not None},
            properties=_properties(self.properties),
            shift=_shift(self.shift_days),
        )

    def open_file(self) -> RowFile:
        """The file. Raises ConfigurationProblem when it cannot be used."""
        try:
            return RowFile(self.file, self.form, self.delimiter)
        except FileProblem as error:
            raise ConfigurationProblem(str(error), error.hints) from None


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
@click.option("--format", "form", type=click.Choice(FORMATS), help="Format of the file. [default: by its name]")
@click.option(
    "--delimiter",
    metavar="CHARACTER",
    callback=_delimiter,
    help="Character between CSV cells, or `tab`. [default: a comma; a tab for .tsv]",
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

    The file is CSV or NDJSON, also compressed with gzip. It is safe to replay it twice: the id of an event and the
    calendar month (UTC) of its time identify the event, and it counts once.

    Exit codes: 0 every row is counted, now or before; 1 it stopped early; 2 the options or the file cannot be used; 3
    some rows were rejected; 130 Ctrl-C ended it.

    \b
    Example: a request with 374 tokens is 374 units of the metric tokens_in.
      tidemark replay requests.csv --customer account --metric =tokens_in \\
          --quantity ContextTokens --time TIMESTAMP --property region=region
    """
    columns = {name: arguments.pop(name) for name, _ in _FIELD_OPTIONS.values()}
    options = Options(columns=columns, **arguments)
    mapping = options.mapping()
    summary = Summary()
    with options.open_file() as rows:
        _check_columns(rows, mapping)
        batches = Batches(rows, mapping, summary, options.batch_size)
        run = Replay(options.address, options.window, options.patience)
        problem = asyncio.run(run.send(rows, batches, summary))
    summary.show(standard_output())
    if isinstance(problem, Interrupted):
        problem.show()
        click.get_current_context().exit(128 + problem.number)
    if problem is not None:
        raise problem
    if summary.rejected:
        click.get_current_context().exit(EXIT_REJECTED)


def _check_columns(rows: RowFile, mapping: RowMapping) -> None:
    """Raises ConfigurationProblem when a CSV file does not have the columns that the mapping needs."""
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
        hints = [f"its cells seem to have another delimiter: tidemark replay {name} --delimiter {shown}"]
    raise ConfigurationProblem(f"{rows.name} does not have the required columns: {'; '.join(problems)}", hints)


def _shift(days: int) -> timedelta:
    try:
        return timedelta(days=days)
    except OverflowError:
        raise click.BadParameter("the number of days is too large", param_hint="--shift-days") from None


def _properties(texts: tuple[str, ...]) -> Mapping[str, FieldSource]:
    properties = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise click.BadParameter(f"{text!r}: write NAME=COLUMN or NAME==VALUE", param_hint="--property")
        properties[name] = FieldSource.parse(source)
    return properties
