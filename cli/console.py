"""What a person sees: the two consoles, the colours of things, and errors that are no surprise."""

import sys
from collections.abc import Iterable
from typing import IO, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.theme import Theme

THEME = Theme(
    {
        "good": "green",
        "bad": "bold red",
        "warn": "yellow",
        "quiet": "bright_black",
        "name": "cyan",
        "number": "bold",
    }
)

EXIT_CONFIGURATION = 2
FILE_WIDTH = 160  # characters of a line where nobody can scroll sideways


class _Console(Console):
    """A console that leaves it to `cli.main` to end the command when the reader of its output has gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def standard_output() -> Console:
    """The console for results; plain text, and wide enough for every table, where it is no terminal."""
    return _Console(theme=THEME, highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)


def standard_error() -> Console:
    """The console for progress and complaints, so that results can be piped on."""
    return _Console(theme=THEME, highlight=False, stderr=True, soft_wrap=not sys.stderr.isatty())


class _LastingConsole(Console):
    """A console that falls silent when its reader is gone (a closed terminal or pipe), and raises nothing."""

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # EIO of a terminal that was closed
            self.quiet = True


def lasting_error() -> Console:
    """The console for progress of what has to drain in order, whether or not its words are read."""
    return _LastingConsole(theme=THEME, highlight=False, stderr=True, soft_wrap=not sys.stderr.isatty())


class Problem(click.ClickException):
    """An error that can be expected: what went wrong, and what to do about it. Shown without a stack trace."""

    def __init__(self, message: str, hints: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.hints = tuple(hints)

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the problem to standard error."""
        console = Console(theme=THEME, highlight=False, stderr=file is None, file=file, soft_wrap=True)
        console.print(f"[bad]error[/] {escape(self.message)}")
        for hint in self.hints:
            console.print(f"      [quiet]{escape(hint)}[/]")


class ConfigurationProblem(Problem):
    """The environment or the command line cannot be used as it is."""

    exit_code = EXIT_CONFIGURATION
