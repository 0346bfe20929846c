"""The front of a server: another protocol in this process, such as HTTP, whose calls the server answers like others.

The server knows no front. The program gives it one (`cli/serving/serve.py` gives `gateway/`).
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from google.rpc import status_pb2

from runtime.configuration import Configuration
from runtime.forwarding import Forwarding
from server.authentication.access import check_role
from server.authentication.api_keys import Authenticator
from server.authentication.certificates import FORWARDED_KEY, TrustedProxies, of_forwarded
from server.calls.errors import mapped
from server.calls.forwarded import forwarded_by

# What the metadata of a call say about its caller: the error with which the server would refuse it, or None.
Admit = Callable[[str, Sequence[tuple[str, str | bytes]]], Awaitable[status_pb2.Status | None]]


@dataclass(frozen=True)
class Backend:
    """What a front gets from the server behind it.

    forwarding: the socket for its calls. tls: of its port; None: the port has none. is_ready: whether load balancers
    may send calls. admit: whether the caller may call a method (as on the wire); for requests that cost much to read.
    shares_port: other processes may listen on the same port.
    """

    forwarding: Forwarding
    tls: ssl.SSLContext | None
    is_ready: Callable[[], bool]
    admit: Admit
    shares_port: bool


class ServingFront(Protocol):
    """A front that listens."""

    async def begin_drain(self) -> None:
        """Accepts no more connections; what is in flight ends as the calls behind it end."""


class Front(Protocol):
    """A front."""

    def serving(self, backend: Backend) -> AbstractAsyncContextManager[ServingFront]:
        """Listens while the block runs. Raises CannotListenFront."""


def admission(authenticator: Authenticator, configuration: Configuration, forwarding: Forwarding) -> Admit:
    """The check of a caller before its request is read, the same as that of the call itself."""
    proxies = TrustedProxies.of(configuration.trusted_proxies)

    async def admit(method: str, metadata: Sequence[tuple[str, str | bytes]]) -> status_pb2.Status | None:
        forwarded = forwarded_by(metadata, forwarding)
        assert forwarded is not None
        sent = {str(value) for key, value in metadata if key == "authorization"}
        authorization = None if not sent else sent.pop() if len(sent) == 1 else ""
        checked = [str(value) for key, value in metadata if key == FORWARDED_KEY]
        try:
            caller = await authenticator.identify(authorization, of_forwarded(forwarded, checked, proxies))
            check_role(caller, method)
        except Exception as error:
            return mapped(error).status()
        return None

    return admit
