"""The command `tidemark watch`."""

import asyncio
import sys

import click
import grpc
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.connection import Address, call_problem, server_options
from cli.console import standard_output
from cli.watch.states import DISABLED, EVALUATING, IN_ALARM, NO_DATA, OK, StateRow, fetch

DEFAULT_INTERVAL = 2.0  # seconds between two looks
BAR_WIDTH = 12  # characters
CHROME_HEIGHT = 5  # lines of the screen that are no rows

_STYLES = {IN_ALARM: "bad", EVALUATING: "warn", DISABLED: "bad", OK: "good", NO_DATA: "quiet"}


@click.command()
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be repeated.")
@click.option("--alarms", is_flag=True, help="Only what is in alarm.")
@click.option("--once", is_flag=True, help="Print the table once, whole, and exit.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2),
    default=DEFAULT_INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@server_options
def watch(
    customers: tuple[str, ...], alarms: bool, once: bool, interval: float, server: str, key: str | None
) -> None:
    """Show the alert states of customers, live.

    Alarms come first, then whoever is nearest to a threshold. What is shown is the current billing period.
    """
    address = Address(server, key)
    try:
        if once or not sys.stdout.isatty():
            asyncio.run(_once(address, customers, alarms))
        else:
            asyncio.run(_live(address, customers, alarms, interval))
    except grpc.aio.AioRpcError as error:
        raise call_problem(error, address) from None
    except KeyboardInterrupt:
        pass


async def _once(address: Address, customers: tuple[str, ...], alarms: bool) -> None:
    async with address.channel() as channel:
        rows = await fetch(channel, address.metadata, customers)
    standard_output().print(table(_chosen(rows, alarms)))


async def _live(address: Address, customers: tuple[str, ...], alarms: bool, interval: float) -> None:
    console = standard_output()
    async with address.channel() as channel:
        rows = await fetch(channel, address.metadata, customers)
        note = ""
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_screen(_chosen(rows, alarms), console.height, address, note), refresh=True)
                await asyncio.sleep(interval)
                try:
                    rows, note = await fetch(channel, address.metadata, customers), ""
                except grpc.aio.AioRpcError as error:
                    # A server that restarts comes back; what was last seen stays on the screen until then.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    note = f"  [bad]no answer[/], shown is what was last seen: {escape(error.details() or '')}"


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
