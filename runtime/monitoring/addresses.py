"""Where the monitoring port of a process listens. Without aiohttp, so that a parent need not import it."""

import socket
from collections.abc import Sequence

# An address, or a socket that listens already.
Address = tuple[str, int] | socket.socket


class CannotMonitor(Exception):
    """The process cannot listen on the address of its monitoring port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"cannot listen on {host} port {port} for health and metrics: another process uses the port, or this"
            " machine does not have the address"
        )


def metrics_url(host: str, port: int) -> str:
    """The URL of the metrics."""
    return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"


def addresses(configured: tuple[str, int] | None, inherited: socket.socket | None) -> Sequence[Address]:
    """Where to listen: at the configured address, and on the socket that a parent has passed on."""
    return [one for one in (configured, inherited) if one is not None]
