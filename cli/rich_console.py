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

FILE_WIDTH = 160  # characters of a line where the output is no terminal


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
