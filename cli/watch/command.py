"""The command `tidemark watch`."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import click
from rich.markup import escape

from cli.client.connection import Address
from cli.client.errors import CALL_ERRORS
from cli.connection.options import call_problem, server_options
from cli.event_types import event_type_numbers
from cli.rich_console import standard_error, standard_output
from cli.serving.signals import EndedBySignal, cancelled_by_signals
from cli.time_option import read_time
from cli.watch.live_table import SHORTEST_INTERVAL, show_live_table
from cli.watch.notification_lines import notification_line
from cli.watch.screen import table
from cli.watch.state_reader import StateFilter, StateReader
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest
from generated.tidemark.v1.condition_pb2 import ConditionType
from generated.tidemark.v1.event_type_pb2 import EventType
from tidemark_client.watch.stream import NotificationStream

DEFAULT_INTERVAL = 1.0  # seconds between two refreshes
DEFAULT_LIMIT = 1_000  # rows that --once prints

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Options:
    """The options of `tidemark watch`, as click names and checks them."""

    customers: Sequence[str]
    alerts: Sequence[str]
    alarms: bool
    once: bool
    limit: int
    interval: float
    notifications: bool
    conditions: Sequence[ConditionType.ValueType]
    event_types: Sequence[EventType.ValueType]
    since: datetime | None
    token: str | None
    as_json: bool
    address: Address

    def check(self) -> None:
        """Raises UsageError when two options cannot be combined."""
        if self.notifications and (self.alarms or self.once):
            raise click.UsageError("--alarms and --once are options of the table: leave out --notifications.")
        if not self.notifications and (self.conditions or self.event_types or self.since or self.token):
            raise click.UsageError("--condition, --event-type, --since and --resume need --notifications.")
        if self.since and self.token:
            raise click.UsageError("--resume and --since both name a start: leave out --since.")

    @property
    def filters(self) -> StateFilter:
        """What the table shows."""
        return StateFilter(self.customers, self.alerts, self.alarms)

    def request(self) -> WatchNotificationsRequest:
        """The request for the notifications."""
        request = WatchNotificationsRequest(
            resume_token=self.token or "",
            customer_ids=self.customers,
            alert_ids=self.alerts,
            condition_types=self.conditions,
            event_types=self.event_types,
        )
        if self.since:
            request.start_time.FromDatetime(self.since)
        return request


def _conditions(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> list[ConditionType.ValueType]:
    known = {name.removeprefix("CONDITION_TYPE_").lower(): number for name, number in ConditionType.items() if number}
    for value in values:
        if value not in known:
            raise click.BadParameter(f"there is no condition {value!r}; the conditions are {', '.join(known)}")
    return [known[value] for value in values]


_OPTIONS = (
    click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer. May be repeated."),
    click.option("--alert", "alerts", multiple=True, metavar="ID", help="Only this alert. May be repeated."),
    click.option("--alarms", is_flag=True, help="Only gauges that are in alarm."),
    click.option(
        "--once", is_flag=True, help="Print the table once and exit. The default if the output is not a terminal."
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=DEFAULT_LIMIT,
        show_default=True,
        metavar="ROWS",
        help="Print at most so many rows. With --once.",
    ),
    click.option(
        "--interval",
        type=click.FloatRange(min=SHORTEST_INTERVAL),
        default=DEFAULT_INTERVAL,
        show_default=True,
        metavar="SECONDS",
        help="Time between two refreshes of the table.",
    ),
    click.option(
        "--notifications",
        is_flag=True,
        help="Instead of the table, print a line for each notification as it arrives.",
    ),
    click.option(
        "--condition",
        "conditions",
        multiple=True,
        callback=_conditions,
        metavar="NAME",
        help="Only notifications of alerts with this condition. May be repeated.",
    ),
    click.option(
        "--event-type",
        "event_types",
        multiple=True,
        callback=event_type_numbers,
        metavar="TYPE",
        help="Only notifications of this type. May be repeated.",
    ),
    click.option("--since", callback=read_time, metavar="TIME", help="Begin with the notifications since this time."),
    click.option(
        "--resume",
        "token",
        metavar="TOKEN",
        help="Begin where an earlier command ended; it printed this resume token.",
    ),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print a line of JSON for each row; of a notification, the body that webhooks carry.",
    ),
)


def _watch_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_watch_options
@server_options
def watch(**options: Any) -> None:
    """Show the alert states of customers, live; or print their notifications as they arrive.

    The table shows the gauges of the current billing period. Gauges in alarm come first, the most severe and the
    latest on top; then those that are nearest to a threshold. The totals above the table count all gauges in alarm.
    """
    chosen = Options(**options)
    chosen.check()
    if chosen.notifications:
        work = _print_notifications(chosen.address, chosen.request(), chosen.as_json)
    elif chosen.once or chosen.as_json or not sys.stdout.isatty():
        work = _print_table(chosen.address, chosen.filters, chosen.limit, chosen.as_json)
    else:
        work = show_live_table(chosen.address, chosen.filters, chosen.interval)
    try:
        asyncio.run(cancelled_by_signals(work))
    except CALL_ERRORS as error:
        raise call_problem(error, chosen.address) from None
    except EndedBySignal as ended:
        raise click.exceptions.Exit(ended.exit_code) from None
    except KeyboardInterrupt:
        pass


async def _print_notifications(address: Address, request: WatchNotificationsRequest, as_json: bool) -> None:
    """Prints every notification until the command is ended, then the resume token."""
    results, progress = standard_output(), standard_error()
    async with address.channel() as channel:
        stream = NotificationStream(
            channel,
            address.metadata,
            request,
            lambda sentence: progress.print(f"[warn]interrupted[/], opening a new stream: {escape(sentence)}"),
        )
        try:
            async for notification in stream.notifications():
                if as_json:
                    click.echo(notification.body)
                else:
                    results.print(notification_line(notification), soft_wrap=True)
        finally:
            if stream.resume_token:
                progress.print(f"[quiet]continue with --resume {stream.resume_token}[/]")


async def _print_table(address: Address, filters: StateFilter, limit: int, as_json: bool) -> None:
    """Prints up to `limit` rows once."""
    async with address.channel() as channel:
        frame = await StateReader(channel, address.metadata, filters).read_all(limit)
    if as_json:
        for row in frame.rows:
            click.echo(json.dumps(row.as_json(), ensure_ascii=False))
    else:
        console = standard_output()
        console.print(table(frame.rows, console.width))
    if frame.has_more:
        standard_error().print(f"[warn]there are more rows[/] than the first {limit:,}; --limit prints more of them")
