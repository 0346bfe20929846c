"""The progress of a replay: a bar on a terminal, otherwise a line every few seconds."""

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cli.replay.row_file import RowFile
from cli.replay.summary import Summary

LINE_INTERVAL = 5.0  # seconds between lines of progress if standard error is not a terminal


class ReplayProgress:
    """Shows the totals of `summary` while the rows of `rows` are sent."""

    def __init__(self, console: Console, rows: RowFile, summary: Summary) -> None:
        self._console = console
        self._rows = rows
        self._summary = summary
        self._next_line = time.monotonic() + LINE_INTERVAL
        self._interruption = ""
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[name]{task.description}[/]"),
                BarColumn(bar_width=30),
                DownloadColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[totals]}"),
                console=console,
                transient=True,
            )
            name = rows.path.name if rows.size is not None else rows.name
            self._task = self._bar.add_task(name, total=rows.size, totals="")

    def __enter__(self) -> "ReplayProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_acknowledgement(self) -> None:
        """Shows the totals after a batch was acknowledged."""
        self._interruption = ""
        if self._bar is not None:
            totals = f"{self._summary.accepted:,} accepted"
            if self._summary.transitions:
                totals += f" · [warn]{self._summary.transitions:,} transitions[/]"
            self._bar.update(self._task, completed=self._rows.position, totals=totals)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL
            self._console.print(
                f"{self._summary.read:,} rows read, {self._summary.accepted:,} accepted,"
                f" {self._summary.duplicates:,} duplicates, {self._summary.rejected:,} rejected"
            )

    def on_interruption(self, sentence: str) -> None:
        """Prints that the stream broke; the same reason is printed once until an acknowledgement."""
        if sentence == self._interruption:
            return
        self._interruption = sentence
        self._console.print(f"[warn]interrupted[/] {escape(sentence)}; trying again")
