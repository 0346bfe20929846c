"""The options of the server of client commands, and the Problem that a failed call is shown as."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import grpc

from cli.client.connection import Address, ClientTls
from cli.client.errors import CallError, error_reason
from cli.console import Problem
from runtime.configuration import DEFAULT_LISTEN

MAX_PORT = 65_535
MAX_SHOWN = 100  # characters of a value that a message quotes

Command = TypeVar("Command", bound=Callable[..., Any])


def _server(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host, colon, port = value.rpartition(":")
    has_scheme = value.startswith(("unix:", "dns:", "ipv4:", "ipv6:"))  # other addresses that gRPC accepts
    has_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT
    has_host = bool(host) and "/" not in host and host.isprintable() and " " not in host
    if not has_scheme and not (colon and has_host and has_port):
        raise click.BadParameter(
            f"{value[:MAX_SHOWN]!r} is not an address: write HOST:PORT, such as {DEFAULT_LISTEN}"
        )
    return value


def _key(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    key = (value or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter("this is not an API key: a key is tmk_ and letters, digits, - and _, without blanks")
    return key or None


def server_options(command: Command) -> Command:
    """Adds the options of a server to a command, which receives them as its `address`."""

    @functools.wraps(command)
    def with_address(
        *positional: Any,
        server: str,
        key: str | None,
        tls: bool,
        server_ca: bytes | None,
        client_certificate: bytes | None,
        client_key: bytes | None,
        **others: Any,
    ) -> Any:
        if (client_certificate is None) != (client_key is None):
            raise click.UsageError("--client-certificate and --client-key belong together: give both or none.")
        secure = None
        if tls or server_ca is not None or client_certificate is not None:
            secure = ClientTls(server_ca, client_certificate, client_key)
        return command(*positional, address=Address(server, key, secure), **others)

    return _with_options(cast("Command", with_address))


def _file(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    if not value:
        return None
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{value} cannot be read: {error.strerror}") from None


def _file_option(name: str, help_text: str) -> Callable[[Command], Command]:
    variable = f"TIDEMARK_{name.upper().replace('-', '_')}"
    return click.option(
        f"--{name}", metavar="FILE", callback=_file, envvar=variable, show_envvar=True, help=help_text
    )


def _with_options(command: Command) -> Command:
    command = _file_option("client-key", "Private key of the client's certificate, in PEM.")(command)
    command = _file_option(
        "client-certificate", "Certificate of the client, in PEM, for a server that asks for one."
    )(command)
    command = _file_option("server-ca", "Authorities of the server's certificate, in PEM. Implies --tls.")(command)
    command = click.option(
        "--tls", is_flag=True, envvar="TIDEMARK_TLS", show_envvar=True, help="Use TLS, with the system's authorities."
    )(command)
    command = click.option(
        "--key",
        envvar="TIDEMARK_KEY",
        callback=_key,
        show_envvar=True,
        help="API key of the organization. Not needed while no key exists.",
    )(command)
    return click.option(
        "--server",
        envvar="TIDEMARK_SERVER",
        callback=_server,
        show_envvar=True,
        default=lambda: os.environ.get("TIDEMARK_LISTEN") or DEFAULT_LISTEN,
        show_default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help="Address of the server.",
    )(command)


def call_problem(error: CallError, address: Address) -> Problem:
    """The Problem of a call that failed."""
    code = error.code()
    message = error.details() or "no further details"
    if code is grpc.StatusCode.UNAVAILABLE and not error_reason(error):
        return Problem(
            f"no server answers at {address.server}: {message}",
            ["start one with `tidemark up`, or name another with --server HOST:PORT", _about_tls(address)],
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Problem(
            f"{address.server} does not accept the credentials of this call: {message}",
            ["pass an API key with --key or TIDEMARK_KEY"],
        )
    return Problem(f"{address.server} answered {code.name}: {message}")


def _about_tls(address: Address) -> str:
    """What to check where the server has TLS and the client none, or files that do not fit."""
    if address.tls is None:
        return "a server with TLS needs --server-ca FILE, or --tls"
    if address.tls.certificate is None:
        return (
            "check --server-ca; a server with TIDEMARK_TLS_CLIENT_CA needs --client-certificate and --client-key, too"
        )
    return "check --server-ca, --client-certificate and --client-key: PEM, and each of the authority that is expected"
