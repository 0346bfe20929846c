"""The console as a child process of `tidemark up` and `tidemark serve`. It imports nothing of the console."""

import importlib.util
import os
import socket
from collections.abc import Mapping

from cli.console import install_command
from cli.serving.processes import Child, child_environment
from runtime.configuration import Configuration

OPENED = "console on "  # what the process prints when it is ready; its address for a browser follows
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 50080

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class ConsoleChild(Child):
    """The console of a server that is a child of the same parent: it starts when the server is ready."""

    def __init__(self, server: Child, settings: Configuration, listen: str) -> None:
        """listen: HOST:PORT of the pages."""
        files = ["--server-files"] if settings.tls_certificate is not None else []
        # The console needs no database, and its key would be the key of all its visitors.
        environment = child_environment({"TIDEMARK_CONSOLE_LISTEN": listen}, inherit=True)
        for name in ("TIDEMARK_KEY", "TIDEMARK_TLS", "TIDEMARK_SERVER_CA"):
            environment.pop(name, None)
        super().__init__("console", ["console", *files], environment, OPENED)
        self._server = server

    async def start(self) -> None:
        """Waits for the server, and starts."""
        await self._server.ready()
        self.environment["TIDEMARK_SERVER"] = reachable(self._server.ready_value)
        await super().start()
        # When it is started again, it must have the address that its visitors use, also after port 0.
        host, _, _ = self.environment["TIDEMARK_CONSOLE_LISTEN"].rpartition(":")
        port = self.ready_value.rstrip("/").rpartition(":")[2]
        self.environment["TIDEMARK_CONSOLE_LISTEN"] = f"{host}:{port}"


def reachable(address: str) -> str:
    """The address at which this machine reaches a server that listens on `address`."""
    host, _, port = address.rpartition(":")
    return f"{_EVERY_ADDRESS.get(host, host)}:{port}"


def written(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_not(settings: Configuration, environment: Mapping[str, str] = os.environ) -> str:
    """Why there can be no console beside this server; empty if there can be one."""
    if importlib.util.find_spec("jinja2") is None:
        return f"it needs the extra `console`: {install_command('console')}"
    if settings.tls_client_ca is not None and not environment.get("TIDEMARK_CLIENT_CERTIFICATE"):
        return (
            "the server asks for client certificates: set TIDEMARK_CLIENT_CERTIFICATE and TIDEMARK_CLIENT_KEY to one"
            " of the console's own"
        )
    return ""


def default_listen() -> str:
    """The default address of `tidemark up`; another port of loopback if another process has that one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((DEFAULT_HOST, DEFAULT_PORT))
        except OSError:
            return f"{DEFAULT_HOST}:0"
    return f"{DEFAULT_HOST}:{DEFAULT_PORT}"
