"""The command `tidemark watch`."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import grpc
from rich.live import Live
from rich.markup import escape

from cli.client.connection import Address
from cli.client.notification_stream import NotificationStream
from cli.rich_console import standard_error, standard_output
from cli.server_options import call_problem, server_options
from cli.signals import EndedBySignal, clearing_away
from cli.watch.board import Board, Narrowed
from cli.watch.lines import line
from cli.watch.screen import rows_of, screen, table
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest
from generated.tidemark.v1.condition_pb2 import ConditionType

DEFAULT_INTERVAL = 1.0  # seconds between two looks
SHORTEST_INTERVAL = 0.2  # seconds, however much happens
REST_SHARE = 4  # times as long as a look takes it rests at least before the next one
DEFAULT_LIMIT = 1_000  # rows that are printed once


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
@click.option("--once", is_flag=True, help="Print the table once and exit, as where the output is no terminal.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="ROWS",
    help="With --once: no more rows than that.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=SHORTEST_INTERVAL),
    default=DEFAULT_INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--notifications", is_flag=True, help="Print a line for each notification instead, as they come.")
@click.option("--alert", "alerts", multiple=True, metavar="ID", help="Only this alert; may be repeated.")
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
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, one line for each row; or notifications as webhooks carry them.",
)
@server_options
def watch(
    customers: tuple[str, ...],
    alarms: bool,
    once: bool,
    limit: int,
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

    In the table alarms come first, the most severe and the latest on top, then what is nearest to a threshold, all of
    the current billing period. Above it stands how much is in alarm in all.
    """
    if notifications and (alarms or once):
        raise click.UsageError("--alarms and --once are for the table, which --notifications does not print.")
    if not notifications and (conditions or event_types or since or token):
        raise click.UsageError("--condition, --event-type, --since and --resume need --notifications.")
    if since and token:
        raise click.UsageError("--resume says already where to begin: leave out --since.")
    address = Address(server, key)
    narrowed = Narrowed(customers, alerts, alarms)
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
            asyncio.run(clearing_away(_lines(address, request, as_json)))
        elif once or as_json or not sys.stdout.isatty():
            asyncio.run(clearing_away(_once(address, narrowed, limit, as_json)))
        else:
            asyncio.run(clearing_away(_live(address, narrowed, interval)))
    except grpc.aio.AioRpcError as error:
        raise call_problem(error, address) from None
    except EndedBySignal as ended:
        raise click.exceptions.Exit(ended.exit_code) from None
    except KeyboardInterrupt:
        pass


async def _lines(address: Address, request: WatchNotificationsRequest, as_json: bool) -> None:
    console, complaints = standard_output(), standard_error()
    async with address.channel() as channel:
        stream = NotificationStream(
            channel,
            address.metadata,
            request,
            lambda sentence: complaints.print(f"[warn]interrupted[/], going on: {escape(sentence)}"),
        )
        try:
            async for notification in stream.notifications():
                if as_json:
                    click.echo(notification.body)
                else:
                    console.print(line(notification), soft_wrap=True)
        finally:
            if stream.resume_token:
                complaints.print(f"[quiet]go on with --resume {stream.resume_token}[/]")


async def _once(address: Address, narrowed: Narrowed, limit: int, as_json: bool) -> None:
    async with address.channel() as channel:
        board = Board(channel, address.metadata, narrowed)
        frame = await board.whole(limit)
    if as_json:
        for row in frame.rows:
            click.echo(json.dumps(row.as_json(), ensure_ascii=False))
    else:
        console = standard_output()
        console.print(table(frame.rows, console.width))
    if frame.more:
        standard_error().print(f"[warn]there is more[/]: these are the first {limit:,}; --limit prints more")


async def _live(address: Address, narrowed: Narrowed, interval: float) -> None:
    console = standard_output()
    clock = asyncio.get_running_loop().time
    async with address.channel() as channel:
        board = Board(channel, address.metadata, narrowed)
        frame, note = await board.look(rows_of(console.height)), ""
        told = asyncio.Event()
        listening = asyncio.create_task(_listen(channel, address, narrowed, told), name="notifications")
        with Live(console=console, screen=True, auto_refresh=False) as live, _cancelled_at_the_end(listening):
            while True:
                live.update(screen(frame, console.width, console.height, address.server, note), refresh=True)
                # What takes long is not asked for more often because much happens.
                shortest = max(SHORTEST_INTERVAL, REST_SHARE * board.cost)
                await asyncio.sleep(shortest)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, interval - shortest)):
                        await told.wait()
                told.clear()
                began = clock()
                try:
                    frame, note = await board.look(rows_of(console.height)), ""
                except grpc.aio.AioRpcError as error:
                    # A server that restarts comes back; what was last seen stays on the screen until then.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    note = f"  [bad]no answer[/], shown is what was last seen: {escape(error.details() or '')}"
                board.cost = clock() - began


@contextlib.contextmanager
def _cancelled_at_the_end(task: "asyncio.Task[None]") -> Iterator[None]:
    try:
        yield
    finally:
        task.cancel()


async def _listen(channel: grpc.aio.Channel, address: Address, narrowed: Narrowed, told: asyncio.Event) -> None:
    """Sets `told` whenever there is a notification: what it changed is worth a look before its time."""
    request = WatchNotificationsRequest(customer_ids=narrowed.customers, alert_ids=narrowed.alerts)
    stream = NotificationStream(channel, address.metadata, request)
    with contextlib.suppress(grpc.aio.AioRpcError):  # without it the table is as quick as its interval
        async for _ in stream.notifications():
            told.set()
