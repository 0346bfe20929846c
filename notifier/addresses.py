"""The URL policy at the dial: checks each address after the name is resolved and before the connection is made.

A check of the URL or of the resolver's answer is not enough: aiohttp does not resolve IP literals, and a name can
resolve to another address shortly afterwards.
"""

import socket
from contextvars import ContextVar
from dataclasses import dataclass, field

from aiohttp import AddrInfoType

from webhooks.url_policy import UrlPolicy


class AddressRefused(OSError):
    """The URL policy refuses an address; no connection to it was begun."""


@dataclass
class Dial:
    """What happened while a connection was made for one request."""

    refused: list[str] = field(default_factory=list)  # reasons
    allowed: int = 0
    address: str = ""  # the last one that was allowed

    @property
    def only_refused(self) -> bool:
        """Whether every address of the name was refused."""
        return bool(self.refused) and not self.allowed


# aiohttp turns the errors of several addresses into one OSError without their types, and does not pass the request to
# its socket factory. So the request puts its Dial here, and the factory writes into it.
current_dial: ContextVar[Dial | None] = ContextVar("current_dial", default=None)


class DialGuard:
    """Makes the sockets of the connector, but none for an address that the policy refuses."""

    def __init__(self, policy: UrlPolicy) -> None:
        self._policy = policy

    def __call__(self, address_info: AddrInfoType) -> socket.socket:
        """The `socket_factory` of aiohttp's TCPConnector. Raises AddressRefused."""
        family, kind, protocol, _, address = address_info
        dial = current_dial.get()
        reason = self._policy.refusal(str(address[0]))
        if reason is not None:
            if dial is not None:
                dial.refused.append(reason)
            raise AddressRefused(reason)
        if dial is not None:
            dial.allowed += 1
            dial.address = str(address[0])
        return socket.socket(family=family, type=kind, proto=protocol)
