"""The command line of the demo, `python -m demo`."""

import sys
from pathlib import Path

import click
import uvloop

from cli.console import Problem
from cli.rich_console import standard_output
from cli.serving.signals import EndedBySignal, cancelled_by_signals
from runtime.clock import SystemClock

DEFAULT_EVENTS = 4_000
DEFAULT_SECONDS = 12.0
DEFAULT_PROBE_SECONDS = 10.0


@click.command()
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Replay real LLM requests instead: a CSV of TIMESTAMP,ContextTokens,GeneratedTokens.",
)
@click.option(
    "--events", type=click.IntRange(min=200), default=DEFAULT_EVENTS, show_default=True, help="In the month."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.5),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="In which the month passes.",
)
@click.option(
    "--probe-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_PROBE_SECONDS,
    show_default=True,
    help="For the measurement of latency; 0 leaves it out.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed makes another month.")
@click.option(
    "--console/--no-console",
    default=None,
    help="Stay until Ctrl-C after the report, so that the console can be looked at. Default: on a terminal.",
)
def demo(
    trace: Path | None, events: int, seconds: float, probe_seconds: float, seed: int, console: bool | None
) -> None:
    """Show everything live, and check it.

    Starts PostgreSQL, a server, a notifier, the console and a webhook receiver of its own in a temporary folder,
    creates alerts, streams usage, and compares what arrives, signed and verified, with a computation of its own.
    Exits with 0 only when they match exactly.
    """
    # Only here: the package that verifies signatures is for tests and the demo, a server does without it.
    try:
        from demo.month import Month
        from demo.replay import Replay
    except ModuleNotFoundError as error:
        raise Problem(f"the demo needs the package {error.name}", ["`make setup` installs it"]) from None
    from demo.display import Display

    display = Display(standard_output())
    clock = SystemClock()
    stays = console if console is not None else sys.stdout.isatty()
    try:
        if trace is not None:
            right = uvloop.run(cancelled_by_signals(Replay(display, clock, trace).run(stays=stays)))
        else:
            right = uvloop.run(
                cancelled_by_signals(Month(display, clock, events, seconds, seed).run(probe_seconds, stays=stays))
            )
    except EndedBySignal as ended:
        raise click.exceptions.Exit(ended.exit_code) from None
    finally:
        display.end()
    if not right:
        raise Problem("the result is not the expected one")
    display.console.print("\n[good]everything happened exactly as expected[/]")
