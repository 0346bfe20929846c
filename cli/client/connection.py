"""How the client commands reach a server: options, channel, credentials, and what a failed call means in words."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import click
import grpc
from google.rpc import error_details_pb2, status_pb2

from cli.console import Problem
from runtime.configuration import DEFAULT_LISTEN, DEFAULT_MAX_MESSAGE_BYTES

DETAILS_KEY = "grpc-status-details-bin"
UNARY_TIMEOUT = 10.0  # seconds
FIRST_PAUSE = 0.25  # seconds before the first new try of a stream; doubled from try to try
LONGEST_PAUSE = 5.0  # seconds between two tries of a stream
MAX_PORT = 65_535
MAX_SHOWN = 100  # characters of a value that a message quotes

Metadata = tuple[tuple[str, str], ...]
Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 4 * DEFAULT_MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The commands wait with their own backoff; a channel that waits longer than they do would defeat it.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True)
class Address:
    """Where the server is, and as whom to talk to it."""

    server: str  # host:port
    key: str | None = None

    @property
    def metadata(self) -> Metadata:
        """What every call carries."""
        return () if self.key is None else (("authorization", f"Bearer {self.key}"),)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """An open channel to the server."""
        async with grpc.aio.insecure_channel(self.server, options=_OPTIONS) as channel:
            yield channel


def _server(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host, colon, port = value.rpartition(":")
    named = value.startswith(("unix:", "dns:", "ipv4:", "ipv6:"))  # what else gRPC takes
    numbered = port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT
    if not named and not (colon and host and numbered and "/" not in host and host.isprintable() and " " not in host):
        raise click.BadParameter(f"{value[:MAX_SHOWN]!r} is no address: write HOST:PORT, as in {DEFAULT_LISTEN}")
    return value


def _key(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    key = (value or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter("that is no key: a key is tmk_ and letters, digits, - and _, without blanks")
    return key or None


def server_options(command: Command) -> Command:
    """Adds --server and --key to a command, which receives them as `server` and `key`."""
    command = click.option(
        "--key",
        envvar="TIDEMARK_KEY",
        callback=_key,
        show_envvar=True,
        help="API key of the organization; not needed while the server has none.",
    )(command)
    return click.option(
        "--server",
        envvar="TIDEMARK_SERVER",
        callback=_server,
        show_envvar=True,
        default=lambda: os.environ.get("TIDEMARK_LISTEN") or DEFAULT_LISTEN,
        show_default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help="The server to talk to.",
    )(command)


def error_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status of a failed call, empty where it brought none."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    return status_pb2.Status.FromString(details) if isinstance(details, bytes) else status_pb2.Status()


def reason(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo reason of a failed call; empty where it brought none."""
    return status_reason(error_status(error))


def status_reason(status: status_pb2.Status) -> str:
    """The ErrorInfo reason of a status; empty where it has none."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """The seconds after which the server asks to be tried again; None where it does not."""
    for detail in error_status(error).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            delay: timedelta = retry.retry_delay.ToTimedelta()
            return delay.total_seconds()
    return None


def call_problem(error: grpc.aio.AioRpcError, address: Address) -> Problem:
    """The Problem of a call that failed."""
    code = error.code()
    told = error.details() or "no further details"
    if code is grpc.StatusCode.UNAVAILABLE and not reason(error):
        return Problem(
            f"no server answers at {address.server}: {told}",
            ["start one with `tidemark up`, or name another with --server HOST:PORT"],
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Problem(
            f"{address.server} does not know who is calling: {told}",
            ["the commands take a key from --key or TIDEMARK_KEY"],
        )
    return Problem(f"{address.server} answered {code.name}: {told}")
