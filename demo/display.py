"""What the demo shows while it runs: a line for each transition when its webhook arrives, and a progress bar."""

import sys
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from demo.definitions import AlertDefinition
from demo.transitions import TransitionKey
from tests.reference.thresholds import REACHED

_OWNER_WIDTH = 20  # characters
_MEASURE_WIDTH = 30
_LEVEL_WIDTH = 9


class Display:
    """Writes to `console`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None

    def title(self, text: str) -> None:
        """The demo's headline."""
        self.console.print(f"\n[bold]Tidemark: demo[/]  [quiet]{escape(text)}[/]\n")

    def step(self, text: str) -> None:
        """A sentence on what begins now; markup is allowed."""
        self.console.print(f"[quiet]·[/] {text}")

    def alerts(self, alerts: tuple[AlertDefinition, ...]) -> None:
        """The alerts that were just created, by condition."""
        by_condition: dict[str, int] = {}
        for alert in alerts:
            by_condition[alert.condition] = by_condition.get(alert.condition, 0) + 1
        counts = ", ".join(f"{count} [name]{condition}[/]" for condition, count in by_condition.items())
        self.step(f"created {len(alerts)} alerts: {counts}")

    def transition(self, transition: TransitionKey, time: datetime | None) -> None:
        """A transition whose webhook arrived and was verified. time: of its event, if any."""
        reached = transition.kind == REACHED
        mark = "[warn]▲[/]" if reached else "[good]▼[/]"
        day = f"{time:%d %b %H:%M}" if time else "no event"
        owner = transition.customer + (f"/{transition.subscription}" if transition.subscription else "")
        measure = " ".join([transition.measured, *(f"{key}={value}" for key, value in transition.group)])
        self.console.print(
            f"  [quiet]{day:>12}[/]  {mark} {transition.level:>{_LEVEL_WIDTH}}"
            f"  [name]{escape(owner):<{_OWNER_WIDTH}}[/] {escape(measure):<{_MEASURE_WIDTH}}"
            f" [quiet]{escape(transition.alert)}[/]",
            no_wrap=True,
            overflow="ellipsis",
            crop=True,
        )

    def begin(self, total: int) -> None:
        """Shows the bar, where there is a terminal."""
        if sys.stdout.isatty():
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=30),
                TextColumn("{task.description}"),
                console=self.console,
                transient=True,
                refresh_per_second=8,
            )
            self._bar.add_task("", total=total)
            self._bar.start()

    def advance(self, done: int, text: str) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, description=text)

    def interrupted(self, sentence: str) -> None:
        """A stream broke and is being opened anew."""
        self.console.print(f"[warn]a stream was interrupted[/]: {escape(sentence)}")

    def end(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
