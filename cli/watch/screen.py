"""The layout of the table: totals, and rows with the columns that fit the width of the terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.watch.state_reader import Frame
from cli.watch.state_rows import DISABLED, EVALUATING, IN_ALARM, NO_DATA, OK, StateRow

BAR_WIDTH = 12  # characters
TOTALS_SHOWN = 3  # alerts
CHROME_HEIGHT = 5 + TOTALS_SHOWN  # lines of the screen around the rows
# The width of the terminal, in characters, from which a column is shown; the other columns are always shown.
BAR_FROM, MEASURE_FROM, SINCE_FROM, ALERT_ID_FROM = 110, 90, 100, 150

_STYLES = {IN_ALARM: "bad", EVALUATING: "warn", DISABLED: "bad", OK: "good", NO_DATA: "quiet"}


def row_capacity(height: int) -> int:
    """The number of rows that a terminal of that height can show."""
    return max(1, height - CHROME_HEIGHT)


def screen(frame: Frame, width: int, height: int, server: str, note: str) -> Group:
    """The whole screen. server: its address. note: shown beside the totals."""
    style = "bad" if frame.in_alarm else "good"
    counted = f"{'over ' if frame.totals.truncated else ''}{frame.in_alarm:,}"
    head = Text.from_markup(
        f"[bold]tidemark[/] [quiet]{escape(server)}[/]  {frame.totals.customer_count:,} customers,"
        f" [{style}]{counted} in alarm[/]{note}"
    )
    foot = Text(
        "there are more rows; filter them with --customer, --alert or --alarms" if frame.has_more else "", "quiet"
    )
    lines = [Text.from_markup(line, overflow="ellipsis") for line in _totals(frame)]
    for line in (head, *lines):
        line.no_wrap = True
    return Group(head, *lines, Text(""), table(frame.rows[: row_capacity(height)], width), foot)


def _totals(frame: Frame) -> list[str]:
    shown = [
        f"[quiet]·[/] {escape(one.alert_display_name)} [quiet]{one.alert_id}[/]"
        f"  [bad]{one.gauge_count:,} in alarm[/],"
        f" {one.customer_count:,} customers{'  [warn]evaluating[/]' if one.evaluating else ''}"
        for one in frame.totals.alerts[:TOTALS_SHOWN]
    ]
    left = len(frame.totals.alerts) - TOTALS_SHOWN
    if left > 0:
        shown[-1] += f"  [quiet]and {left:,} more alerts[/]"
    return shown


def table(rows: Sequence[StateRow], width: int) -> Table:
    """The rows, in the columns that fit a width of so many characters."""
    columns: list[tuple[str, bool, int]] = [  # name, whether it is a number, the width from which it is shown
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
        escape(row.customer),
        escape(row.alert),
        f"[quiet]{row.alert_id}[/]",
        escape(row.measure),
        "" if row.value is None else f"{row.value:f}",
        "" if row.next_level is None else f"{row.next_level:f}",
        "" if row.next_level is None else _bar(row, style),
        f"{reached} [quiet]silent[/]" if row.silent else reached,
        "" if row.change_time is None else f"[quiet]{row.change_time:%m-%d %H:%M:%S}[/]",
    )


def _bar(row: StateRow, style: str) -> str:
    full = int(row.nearness * BAR_WIDTH)
    return f"[{style}]{'━' * full}[/][quiet]{'─' * (BAR_WIDTH - full)}[/]"
