"""Whether the ports that processes will listen on are free, before anything is started."""

import errno
import os
import socket
from collections.abc import Iterator

from cli.console import Problem
from cli.serving.console_child import written
from runtime.configuration import Configuration


def check_ports(settings: Configuration, *, with_console: bool) -> None:
    """Raises a Problem for the first address of `tidemark up` on which it cannot listen.

    A name that cannot be resolved, and an address that this machine does not have, are problems of the processes.
    """
    for host, port, setting in _addresses(settings, with_console):
        if port and _is_taken(host, port):
            raise Problem(
                f"cannot listen on {written(host, port)}: another process does",
                ["if it is another `tidemark up`, use it, or end it", f"or choose another address with {setting}"],
            )


def _addresses(settings: Configuration, with_console: bool) -> Iterator[tuple[str, int, str]]:
    yield settings.listen_host, settings.listen_port, "TIDEMARK_LISTEN"
    if settings.http_listen is not None:
        yield *settings.http_listen, "--http-listen"
    if settings.metrics_listen is not None:
        yield *settings.metrics_listen, "--metrics-listen"
    if with_console and settings.console_listen is not None:
        yield *settings.console_listen, "--console-listen"


def _is_taken(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # a connection of an earlier process that is not closed yet does not count
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False
