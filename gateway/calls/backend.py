"""What this front needs of the server behind it. `server/front.py` has the same for any front, and gives it."""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from google.rpc import status_pb2

from runtime.forwarding import Forwarding

Metadata = Sequence[tuple[str, str | bytes]]


class Backend(Protocol):
    """The server behind."""

    @property
    def forwarding(self) -> Forwarding:
        """The socket for calls."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS of the port."""

    @property
    def is_ready(self) -> Callable[[], bool]:
        """Whether load balancers may send calls."""

    @property
    def admit(self) -> Callable[[str, Metadata], Awaitable[status_pb2.Status | None]]:
        """The error with which the server would refuse a caller of a method; None if it would not."""

    @property
    def shares_port(self) -> bool:
        """Whether other processes may listen on the same port."""
