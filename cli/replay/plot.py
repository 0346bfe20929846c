"""A plot in the terminal: events and crossings over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from cli.replay.timeline import Timeline
from cli.replay.times import EPOCH

HEIGHT = 6  # lines of the bars
MIN_COLUMNS, MAX_COLUMNS = 20, 120
LABEL = 9  # characters before the plot
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .#"


def plot(timeline: Timeline, width: int, *, ascii_only: bool) -> list[str]:
    """The lines of the plot, at most so many characters wide; none where there is no event."""
    columns = max(MIN_COLUMNS, min(width - LABEL - 2, MAX_COLUMNS))
    first, _, events, crossings = timeline.in_columns(columns)
    if not events:
        return []
    signs = _ASCII if ascii_only else _BLOCKS
    axis, corner = ("|", "+") if ascii_only else ("┤", "└")
    lines = ["events over time"]
    most = max(events)
    for index, text in enumerate(bars(events, HEIGHT, signs)):
        label = f"{most:,}" if index == 0 else "0" if index == HEIGHT - 1 else ""
        lines.append(f"{label[-LABEL:]:>{LABEL}} {axis}{text}".rstrip())
    if any(crossings):
        marks = bars(crossings, 1, signs)[0]
        lines.append(f"{'crossings':>{LABEL}} {axis}{marks}".rstrip())
    lines.append(f"{'':>{LABEL}} {corner}{('-' if ascii_only else '─') * len(events)}")
    lines.append(f"{'':>{LABEL}}  {_times(timeline, first, len(events))}")
    return lines


def bars(values: Sequence[int], height: int, signs: str) -> list[str]:
    """Lines of bars, the highest line first. A value above 0 shows something, however small it is."""
    steps = len(signs) - 1
    most = max(values, default=0)
    levels = [-(-value * height * steps // most) if most else 0 for value in values]
    return [
        "".join(signs[max(0, min(steps, level - line * steps))] for level in levels)
        for line in range(height - 1, -1, -1)
    ]


def _times(timeline: Timeline, first: int, columns: int) -> str:
    """The times at both ends of the axis, in UTC."""
    assert timeline.last is not None
    long = timeline.last - first > 2 * 86_400
    form = "%Y-%m-%d" if long else "%Y-%m-%d %H:%M:%S"
    start, end = (
        (EPOCH + timedelta(seconds=second)).strftime(form) + ("" if long else " UTC")
        for second in (timeline.first or first, timeline.last)
    )
    return start if columns < len(start) + len(end) + 2 else f"{start}{end:>{columns - len(start)}}"
