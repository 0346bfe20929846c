"""Checks of what names a server and its key."""

import click

from runtime.configuration import DEFAULT_LISTEN

MAX_PORT = 65_535
MAX_SHOWN = 100  # characters of a value that a message quotes


def checked_server(value: str) -> str:
    """The address of a server. Raises click.BadParameter."""
    host, colon, port = value.rpartition(":")
    has_scheme = value.startswith(("unix:", "dns:", "ipv4:", "ipv6:"))  # other addresses that gRPC accepts
    has_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT
    has_host = bool(host) and "/" not in host and host.isprintable() and " " not in host
    if not has_scheme and not (colon and has_host and has_port):
        raise click.BadParameter(
            f"{value[:MAX_SHOWN]!r} is not an address: write HOST:PORT, such as {DEFAULT_LISTEN}",
            param_hint="--server",
        )
    return value


def checked_key(key: str) -> str | None:
    """The API key; None if it is empty. Raises click.BadParameter."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter(
            "this is not an API key: a key is tmk_ and letters, digits, - and _, without blanks", param_hint="--key"
        )
    return key or None
