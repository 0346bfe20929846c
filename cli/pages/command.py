"""The command `tidemark console`: the pages of one server, as a process of its own."""

import asyncio
import os
from pathlib import Path

import click

from cli.client.connection import Address
from cli.connection.options import server_options
from cli.console import ConfigurationProblem, Problem
from cli.serving.console_child import OPENED
from cli.serving.parent import parent_option, stopping_with
from console.access.attempts import networks_of
from console.process import CannotListen, Listening, Server, serve
from runtime import logs
from runtime.clock import SystemClock
from runtime.configuration import Configuration, ConfigurationError, load
from runtime.signals import on_stop

DEFAULT_LISTEN = "127.0.0.1:50080"


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    envvar="TIDEMARK_CONSOLE_LISTEN",
    show_envvar=True,
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Address of the pages; port 0 takes any free port.",
)
@click.option("--server-files", is_flag=True, hidden=True)
@parent_option
@server_options
def console(address: Address, listen: str, server_files: bool, with_parent: int | None) -> None:
    """Show the pages of a server: customers, alerts, notifications, endpoints.

    Visitors sign in with an API key, and see and do what the key allows; a --key of this command is not used. As long
    as the server needs no keys, and the console listens on this machine only, its visitors need none.

    With TIDEMARK_TLS_CERTIFICATE and TIDEMARK_TLS_KEY, the pages have TLS. TIDEMARK_SECRET_KEYS lets sessions last
    longer than this process, and lets several consoles share them.
    """
    try:
        settings = load({**os.environ, "TIDEMARK_CONSOLE_LISTEN": listen})
    except ConfigurationError as error:
        raise ConfigurationProblem(str(error)) from None
    assert settings.console_listen is not None, "the option has a default"
    logs.configure(settings.log_level, settings.log_format)
    host, port = settings.console_listen
    listening = Listening(host, port, settings.tls_certificate, settings.tls_key)
    try:
        asyncio.run(_run(_server(address, settings, server_files), listening, settings, with_parent))
    except CannotListen as error:
        raise Problem(str(error), ["choose another address with --listen HOST:PORT"]) from None


async def _run(server: Server, listening: Listening, settings: Configuration, with_parent: int | None) -> None:
    stop = asyncio.Event()
    on_stop(stop.set)
    secret = settings.secret_keys[0][1] if settings.secret_keys else None
    proxies = networks_of(settings.trusted_proxies)
    async with stopping_with(with_parent):
        await serve(server, listening, SystemClock(), lambda url: click.echo(f"{OPENED}{url}"), stop, secret, proxies)


def _server(address: Address, settings: Configuration, server_files: bool) -> Server:
    """The server. server_files: it is the parent's, and its certificate is in the files of this process."""
    tls = address.tls
    certificate, key = (None, None) if tls is None else (tls.certificate, tls.key)
    if server_files and settings.tls_certificate is not None:
        chain = Path(settings.tls_certificate).read_bytes()
        return Server(address.server, True, chain, trusts_files=True, certificate=certificate, key=key)
    authorities = None if tls is None else tls.authorities
    return Server(address.server, tls is not None, authorities, certificate=certificate, key=key)
