"""The consoles of commands that show tables and live progress. They need the extra `cli`."""

import sys

from rich.console import Console
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

FILE_WIDTH = 160  # characters of a line if the output is not a terminal


class _Console(Console):
    """A console that raises BrokenPipeError when the reader of its output has gone; `cli.main` ends the command."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def standard_output() -> Console:
    """The console for results. If it is not a terminal: plain text, wide enough for every table."""
    return _Console(theme=THEME, highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)


def standard_error() -> Console:
    """The console for progress and warnings, so that results can be piped."""
    return _Console(theme=THEME, highlight=False, stderr=True, soft_wrap=not sys.stderr.isatty())
