"""How the live table looks: totals, rows by the width of the terminal, and what does not fit."""

from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.watch.board import Frame
from cli.watch.states import DISABLED, EVALUATING, IN_ALARM, NO_DATA, OK, StateRow

BAR_WIDTH = 12  # characters
TOTALS_SHOWN = 3  # alerts
CHROME_HEIGHT = 5 + TOTALS_SHOWN  # lines of the screen that are no rows
# The columns that a line of that many characters has room for; the others are always there.
BAR_FROM, MEASURE_FROM, SINCE_FROM, ALERT_ID_FROM = 110, 90, 100, 150

_STYLES = {IN_ALARM: "bad", EVALUATING: "warn", DISABLED: "bad", OK: "good", NO_DATA: "quiet"}


def rows_of(height: int) -> int:
    """How many rows a terminal of that height shows."""
    return max(1, height - CHROME_HEIGHT)


def screen(frame: Frame, width: int, height: int, server: str, note: str) -> Group:
    """The whole screen."""
    style = "bad" if frame.in_alarm else "good"
    counted = f"{'over ' if frame.totals.truncated else ''}{frame.in_alarm:,}"
    head = Text.from_markup(
        f"[bold]tidemark[/] [quiet]{escape(server)}[/]  {frame.totals.customer_count:,} customers,"
        f" [{style}]{counted} in alarm[/]{note}"
    )
    foot = Text("and more; --customer, --alert or --alarms narrows it" if frame.more else "", "quiet")
    lines = [Text.from_markup(line, overflow="ellipsis") for line in _totals(frame)]
    for line in (head, *lines):
        line.no_wrap = True
    return Group(head, *lines, Text(""), table(frame.rows[: rows_of(height)], width), foot)


def _totals(frame: Frame) -> list[str]:
    shown = [
        f"[quiet]·[/] {escape(one.alert_name)} [quiet]{one.alert_id}[/]  [bad]{one.gauge_count:,} in alarm[/],"
        f" {one.customer_count:,} customers{'  [warn]evaluating[/]' if one.evaluating else ''}"
        for one in frame.totals.alerts[:TOTALS_SHOWN]
    ]
    left = len(frame.totals.alerts) - TOTALS_SHOWN
    if left > 0:
        shown[-1] += f"  [quiet]and {left:,} alerts more[/]"
    return shown


def table(rows: Sequence[StateRow], width: int) -> Table:
    """The rows as a person reads them, in the columns that a line of that many characters has room for."""
    columns: list[tuple[str, bool, int]] = [  # name, whether it is a number, from which width
        ("", False, 0),
        ("severity", False, 0),
        ("customer", False, 0),
        ("alert", False, 0),
        ("alert id", False, ALERT_ID_FROM),
        ("measures", False, MEASURE_FROM),
        ("value", True, 0),
        ("next", True, 0),
        (" ", False, BAR_FROM),
        ("reached", False, 0),
        ("since", False, SINCE_FROM),
    ]
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet")
    for name, number, least in columns:
        if width >= least:
            justify = "right" if number else "left"
            shown.add_column(name, no_wrap=True, overflow="ellipsis", justify=justify)  # type: ignore[arg-type]
    for row in rows:
        cells = zip(columns, _cells(row), strict=True)
        shown.add_row(*(cell for (_, _, least), cell in cells if width >= least))
    return shown


def _cells(row: StateRow) -> Sequence[str]:
    style = _STYLES[row.status]
    reached = f"[{style}]{escape(', '.join(row.reached))}[/]"
    return (
        f"[{style}]{row.status}[/]",
        row.severity_word,
        escape(row.owner),
        escape(row.alert),
        f"[quiet]{row.alert_id}[/]",
        escape(row.measure),
        "" if row.value is None else f"{row.value:f}",
        "" if row.next_level is None else f"{row.next_level:f}",
        "" if row.next_level is None else _bar(row, style),
        f"{reached} [quiet]silent[/]" if row.silent else reached,
        "" if row.changed is None else f"[quiet]{row.changed:%m-%d %H:%M:%S}[/]",
    )


def _bar(row: StateRow, style: str) -> str:
    full = int(row.nearness * BAR_WIDTH)
    return f"[{style}]{'━' * full}[/][quiet]{'─' * (BAR_WIDTH - full)}[/]"
