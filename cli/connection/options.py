"""The options of the server of client commands, and the Problem that a failed call is shown as."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from cli.console import Problem
from cli.contexts.checks import checked_key, checked_server
from cli.contexts.choice import CONTEXT_VARIABLE, VARIABLES, choose, key_of
from cli.contexts.completion import complete_contexts
from cli.contexts.storage import Context
from cli.sections import SectionOption
from runtime.configuration import DEFAULT_LISTEN

if TYPE_CHECKING:
    from cli.client.connection import Address
    from cli.client.errors import FailedCall

CONNECTION = "Connection"  # the heading of these options in a help
# The parameters of a click command that these options make.
PARAMETERS = ("server", "key", "context_name", "tls", "server_ca", "client_certificate", "client_key")

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """Adds the options of a server to a command, which receives them as its `address`."""

    @functools.wraps(command)
    def with_address(*positional: Any, **named: Any) -> Any:
        return command(*positional, address=address_of(named), **named)

    for option in reversed(connection_options()):
        with_address = option(with_address)
    return cast("Command", with_address)


def address_in(context: click.Context) -> Address:
    """The address of the options of a command that is being called. Raises click.UsageError and Problem."""
    return address_of({name: context.params.get(name) for name in PARAMETERS})


def address_of(named: dict[str, Any]) -> Address:
    """The address of these options, which are taken out of `named`. Raises click.UsageError and Problem."""
    # gRPC takes a third of the time in which a command starts, and a help does not need it.
    from cli.client.connection import Address, ClientTls

    server = named.pop("server")
    if server is not None:
        checked_server(server)  # an empty one is no server: a variable of a script may be unset
    options = Context(
        server=server or "",
        key=(named.pop("key") or "").strip(),
        tls=bool(named.pop("tls")),
        server_ca=named.pop("server_ca") or "",
        client_certificate=named.pop("client_certificate") or "",
        client_key=named.pop("client_key") or "",
    )
    context = choose(options, named.pop("context_name")).context
    if bool(context.client_certificate) != bool(context.client_key):
        raise click.UsageError("--client-certificate and --client-key belong together: give both or none.")
    secure = None
    if context.tls or context.server_ca or context.client_certificate:
        secure = ClientTls(
            _read("--server-ca", context.server_ca),
            _read("--client-certificate", context.client_certificate),
            _read("--client-key", context.client_key),
        )
    return Address(checked_server(context.server), checked_key(key_of(context)), secure)


def _read(option: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint=option) from None


def connection_options() -> list[Callable[[Any], Any]]:
    """The options of a server, in the order of the help."""

    def option(name: str, text: str, **settings: Any) -> Callable[[Any], Any]:
        variable = VARIABLES.get(name.removeprefix("--").replace("-", "_"), "")
        shown = f"{text}  [env var: {variable}]" if variable else text
        return click.option(name, cls=SectionOption, section=CONNECTION, help=shown, **settings)

    return [
        option(
            "--server",
            f"Address of the server. Default: that of the context, else {DEFAULT_LISTEN}.",
            metavar="HOST:PORT",
        ),
        option("--key", "API key of the organization. Not needed while no key exists.", metavar="KEY"),
        click.option(
            "--context",
            "context_name",
            cls=SectionOption,
            section=CONNECTION,
            metavar="NAME",
            shell_complete=complete_contexts,
            help="Server and credentials of this context, see `tidemark context`. Default: the one in use."
            f"  [env var: {CONTEXT_VARIABLE}]",
        ),
        option("--tls", "Use TLS, with the system's authorities.", is_flag=True),
        option("--server-ca", "Authorities of the server's certificate, in PEM. Implies --tls.", metavar="FILE"),
        option(
            "--client-certificate",
            "Certificate of the client, in PEM, for a server that asks for one.",
            metavar="FILE",
        ),
        option("--client-key", "Private key of the client's certificate, in PEM.", metavar="FILE"),
    ]


def call_problem(error: FailedCall, address: Address) -> Problem:
    """The Problem of a call that failed, with the exit code of its status."""
    from cli.connection.problems import problem_of

    return problem_of(error, address)
