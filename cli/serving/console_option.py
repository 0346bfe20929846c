"""The options of the console, of `tidemark up` and `tidemark serve`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def console_listen_option(command: Command) -> Command:
    """Adds --console-listen, which overrides TIDEMARK_CONSOLE_LISTEN."""
    return click.option(
        "--console-listen",
        metavar="HOST:PORT",
        help="Address of the console, for a browser. Overrides TIDEMARK_CONSOLE_LISTEN.",
    )(command)


def console_options(command: Command) -> Command:
    """Adds --console-listen and --no-console."""
    command = click.option("--console/--no-console", default=True, help="Run the console, too.", show_default=True)(
        command
    )
    return console_listen_option(command)
