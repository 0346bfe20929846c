"""How far a replay has come: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cli.replay.rows import RowFile
from cli.replay.summary import Summary

LINE_INTERVAL = 5.0  # seconds between lines of progress where there is no terminal


class ReplayProgress:
    """Shows the totals of `summary` while the rows of `rows` pass."""

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
                TextColumn("{task.fields[told]}"),
                console=console,
                transient=True,
            )
            name = rows.path.name if rows.size is not None else rows.name
            self._task = self._bar.add_task(name, total=rows.size, told="")

    def __enter__(self) -> "ReplayProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def moved(self) -> None:
        """Something was acknowledged."""
        self._interruption = ""
        if self._bar is not None:
            told = f"{self._summary.accepted:,} accepted"
            if self._summary.transitions:
                told += f" · [warn]{self._summary.transitions:,} crossed[/]"
            self._bar.update(self._task, completed=self._rows.position, told=told)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL
            self._console.print(
                f"{self._summary.rows:,} rows read, {self._summary.accepted:,} accepted,"
                f" {self._summary.duplicates:,} duplicates, {self._summary.rejected:,} rejected"
            )

    def interrupted(self, sentence: str) -> None:
        """The stream broke and is being opened anew; said once for as long as the reason stays the same."""
        if sentence == self._interruption:
            return
        self._interruption = sentence
        self._console.print(f"[warn]interrupted[/] {escape(sentence)}; trying again")
