"""The options of the monitoring port, of the commands that run processes."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def metrics_listen_option(command: Command) -> Command:
    """Adds --metrics-listen, which overrides TIDEMARK_METRICS_LISTEN."""
    return click.option(
        "--metrics-listen",
        metavar="HOST:PORT",
        help="Address of health and metrics over HTTP. Overrides TIDEMARK_METRICS_LISTEN.",
    )(command)


def monitoring_socket_option(command: Command) -> Command:
    """Adds the hidden option --monitoring-socket: the number of a socket that a parent process has passed on.

    The command receives it as a socket, which listens, or None.
    """
    return click.option("--monitoring-socket", type=int, hidden=True, callback=_inherited)(command)


def _inherited(context: click.Context, parameter: click.Parameter, number: int | None) -> socket.socket | None:
    return None if number is None else socket.socket(fileno=number)
