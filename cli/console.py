"""Plain output of the command line, with click alone: styles, lines on both streams, expected errors."""

import os
import sys
from collections.abc import Iterable
from functools import partial
from typing import IO, Any

import click

EXIT_CONFIGURATION = 2

good = partial(click.style, fg="green")
bad = partial(click.style, fg="red", bold=True)
warn = partial(click.style, fg="yellow")
quiet = partial(click.style, fg="bright_black")
named = partial(click.style, fg="cyan")

# Control characters with which a terminal overwrites or hides the start of a line: \a \b \v \f \r.
_CONTROL = dict.fromkeys((7, 8, 11, 12, 13))


def print_result(text: str) -> None:
    """Prints a line on standard output, for results."""
    _line(text, sys.stdout)


def print_progress(text: str) -> None:
    """Prints a line on standard error, for progress and remarks, so that results can be piped."""
    _line(text, sys.stderr)


class DurableProgress:
    """Prints progress for a command that must drain in order, also after standard error was closed."""

    def __init__(self) -> None:
        self._is_closed = False

    def __call__(self, text: str) -> None:
        """Prints a line on standard error; does nothing once the terminal or pipe is closed."""
        if self._is_closed:
            return
        try:
            print_progress(text)
        except OSError:  # EPIPE of a closed pipe, EIO of a closed terminal
            self._is_closed = True


class Problem(click.ClickException):
    """An expected error. Shown without a traceback: the message says what happened, the hints what to do."""

    def __init__(self, message: str, hints: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.hints = tuple(hints)

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the problem on standard error."""
        stream = sys.stderr if file is None else file
        _line(f"{bad('error')} {self.message}", stream)
        for hint in self.hints:
            _line(f"      {quiet(hint)}", stream)


class ConfigurationProblem(Problem):
    """The environment or the command line cannot be used; the command ends with exit code 2."""

    exit_code = EXIT_CONFIGURATION


def confirm(what: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone. Raises Problem for no, and where it cannot ask."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationProblem(
            f"this {what}, and the command cannot ask: standard input is no terminal", ["add --yes to do it"]
        )
    if not click.confirm(f"This {what}.\nContinue?", err=True):
        raise Problem("nothing is changed")


def install_command(extra: str) -> str:
    """The command that installs an extra of this package."""
    return f"pip install 'tidemark[{extra}]'"


def _line(text: str, stream: IO[Any]) -> None:
    # click removes colours if the stream is not a terminal; it does not read these two variables.
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")
    click.echo(text.translate(_CONTROL), file=stream, color=False if plain else None)
