"""The command `tidemark watch`."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click
import grpc
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.connection import Address, call_problem, server_options
from cli.console import standard_error, standard_output
from cli.watch.following import Following
from cli.watch.lines import line
from cli.watch.states import DISABLED, EVALUATING, IN_ALARM, NO_DATA, OK, StateRow, fetch
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest
from generated.tidemark.v1.condition_pb2 import ConditionType

DEFAULT_INTERVAL = 2.0  # seconds between two looks
SHORTEST_INTERVAL = 0.2  # seconds, however much happens
BAR_WIDTH = 12  # characters
CHROME_HEIGHT = 5  # lines of the screen that are no rows

_STYLES = {IN_ALARM: "bad", EVALUATING: "warn", DISABLED: "bad", OK: "good", NO_DATA: "quiet"}


def _condition(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[int]:
    known = {name.removeprefix("CONDITION_TYPE_").lower(): number for name, number in ConditionType.items() if number}
    for value in values:
        if value not in known:
            raise click.BadParameter(f"there is no condition {value!r}; there are {', '.join(known)}")
    return [known[value] for value in values]


def _time(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time: write 2026-03-15T12:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@click.command()
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be repeated.")
@click.option("--alarms", is_flag=True, help="Only what is in alarm.")
@click.option("--once", is_flag=True, help="Print the table once, whole, and exit.")
@click.option(
    "--interval",
    type=click.FloatRange(min=SHORTEST_INTERVAL),
    default=DEFAULT_INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--notifications", is_flag=True, help="Print a line for each notification instead, as they come.")
@click.option("--alert", "alerts", multiple=True, metavar="ID", help="Notifications of this alert; may be repeated.")
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    callback=_condition,
    metavar="NAME",
    help="Notifications of alerts with this condition; may be repeated.",
)
@click.option("--event-type", "event_types", multiple=True, metavar="TYPE", help="Notifications of this type.")
@click.option(
    "--since", callback=_time, metavar="TIME", help="Notifications from that time on, and then as they come."
)
@click.option("--resume", "token", metavar="TOKEN", help="Notifications from where an earlier call ended.")
@click.option("--json", "as_json", is_flag=True, help="Print notifications as the JSON that webhooks carry.")
@server_options
def watch(
    customers: tuple[str, ...],
    alarms: bool,
    once: bool,
    interval: float,
    notifications: bool,
    alerts: tuple[str, ...],
    conditions: list[ConditionType.ValueType],
    event_types: tuple[str, ...],
    since: datetime | None,
    token: str | None,
    as_json: bool,
    server: str,
    key: str | None,
) -> None:
    """Show the alert states of customers, live; or their notifications, one after the other.

    In the table alarms come first, then whoever is nearest to a threshold. What is shown is the current billing
    period.
    """
    if notifications and (alarms or once):
        raise click.UsageError("--alarms and --once are for the table, which --notifications does not print.")
    if not notifications and (alerts or conditions or event_types or since or token or as_json):
        raise click.UsageError(
            "--alert, --condition, --event-type, --since, --resume and --json need --notifications."
        )
    if since and token:
        raise click.UsageError("--resume says already where to begin: leave out --since.")
    address = Address(server, key)
    request = WatchNotificationsRequest(
        resume_token=token or "",
        customer_ids=customers,
        alert_ids=alerts,
        condition_types=conditions,
        event_types=event_types,
    )
    if since:
        request.start_time.FromDatetime(since)
    try:
        if notifications:
            asyncio.run(_lines(address, request, as_json))
        elif once or not sys.stdout.isatty():
            asyncio.run(_once(address, customers, alarms))
        else:
            asyncio.run(_live(address, customers, alarms, interval))
    except grpc.aio.AioRpcError as error:
        raise call_problem(error, address) from None
    except KeyboardInterrupt:
        pass


async def _lines(address: Address, request: WatchNotificationsRequest, as_json: bool) -> None:
    console, complaints = standard_output(), standard_error()
    async with address.channel() as channel:
        following = Following(
            channel,
            address.metadata,
            request,
            lambda sentence: complaints.print(f"[warn]interrupted[/], going on: {escape(sentence)}"),
        )
        try:
            async for notification in following.notifications():
                if as_json:
                    click.echo(notification.body)
                else:
                    console.print(line(notification), soft_wrap=True)
        finally:
            if following.token:
                complaints.print(f"[quiet]go on with --resume {following.token}[/]")


async def _once(address: Address, customers: tuple[str, ...], alarms: bool) -> None:
    async with address.channel() as channel:
        rows = await fetch(channel, address.metadata, customers)
    standard_output().print(table(_chosen(rows, alarms)))


async def _live(address: Address, customers: tuple[str, ...], alarms: bool, interval: float) -> None:
    console = standard_output()
    async with address.channel() as channel:
        rows = await fetch(channel, address.metadata, customers)
        note = ""
        told = asyncio.Event()
        listening = asyncio.create_task(_listen(channel, address, customers, told), name="notifications")
        with Live(console=console, screen=True, auto_refresh=False) as live, _cancelled_at_the_end(listening):
            while True:
                live.update(_screen(_chosen(rows, alarms), console.height, address, note), refresh=True)
                await asyncio.sleep(SHORTEST_INTERVAL)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval - SHORTEST_INTERVAL):
                        await told.wait()
                told.clear()
                try:
                    rows, note = await fetch(channel, address.metadata, customers), ""
                except grpc.aio.AioRpcError as error:
                    # A server that restarts comes back; what was last seen stays on the screen until then.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    note = f"  [bad]no answer[/], shown is what was last seen: {escape(error.details() or '')}"


@contextlib.contextmanager
def _cancelled_at_the_end(task: "asyncio.Task[None]") -> Iterator[None]:
    try:
        yield
    finally:
        task.cancel()


async def _listen(channel: grpc.aio.Channel, address: Address, customers: Sequence[str], told: asyncio.Event) -> None:
    """Sets `told` whenever there is a notification: what it changed is worth a look before its time."""
    following = Following(channel, address.metadata, WatchNotificationsRequest(customer_ids=customers))
    with contextlib.suppress(grpc.aio.AioRpcError):  # without it the table is as quick as its interval
        async for _ in following.notifications():
            told.set()


def _chosen(rows: list[StateRow], alarms: bool) -> list[StateRow]:
    return [row for row in rows if row.status == IN_ALARM] if alarms else rows


def _screen(rows: list[StateRow], height: int, address: Address, note: str) -> Group:
    room = max(1, height - CHROME_HEIGHT)
    in_alarm = sum(row.status == IN_ALARM for row in rows)
    owners = len({row.owner for row in rows})
    head = Text.from_markup(
        f"[bold]tidemark[/] [quiet]{escape(address.server)}[/]  {owners} watched, "
        f"[{'bad' if in_alarm else 'good'}]{in_alarm} in alarm[/]{note}\n"
    )
    hidden = len(rows) - room
    foot = Text(f"and {hidden} more; --customer or --alarms narrows it" if hidden > 0 else "", "quiet")
    return Group(head, table(rows[:room]), foot)


def table(rows: list[StateRow]) -> Table:
    """The rows as a person reads them."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    for name in ("", "customer", "alert", "measures"):
        shown.add_column(name, no_wrap=True, overflow="ellipsis")
    shown.add_column("value", justify="right", no_wrap=True)
    shown.add_column("next", justify="right", no_wrap=True)
    for name in ("", "reached", "since"):
        shown.add_column(name, no_wrap=True)
    for row in rows:
        style = _STYLES[row.status]
        shown.add_row(
            f"[{style}]{row.status}[/]",
            escape(row.owner),
            escape(row.alert),
            escape(row.measure),
            "" if row.value is None else f"{row.value:f}",
            "" if row.next_level is None else f"{row.next_level:f}",
            "" if row.next_level is None else _bar(row, style),
            f"[{style}]{escape(', '.join(row.reached))}[/]",
            "" if row.changed is None else f"[quiet]{row.changed:%m-%d %H:%M:%S}[/]",
        )
    return shown


def _bar(row: StateRow, style: str) -> str:
    full = int(row.nearness * BAR_WIDTH)
    return f"[{style}]{'━' * full}[/][quiet]{'─' * (BAR_WIDTH - full)}[/]"
