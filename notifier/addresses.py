"""The guard at the dial: sees each concrete address after the name is resolved and before it is connected to.

A check of the URL or of the resolver's answer alone would miss what is dialled: aiohttp skips its resolver
for IP literals, and a name can lead elsewhere a moment later.
"""

import socket
from contextvars import ContextVar
from dataclasses import dataclass, field

from aiohttp import AddrInfoType

from webhooks.url_policy import TargetPolicy


class AddressRefused(OSError):
    """A connection to an address that webhooks may not go to was stopped before it began."""


@dataclass
class Dial:
    """What happened while one request looked for a connection."""

    refused: list[str] = field(default_factory=list)  # reasons
    allowed: int = 0
    address: str = ""  # the last one that was allowed

    @property
    def only_refused(self) -> bool:
        """Whether every address that the name led to was refused."""
        return bool(self.refused) and not self.allowed


# aiohttp folds the errors of several addresses into one OSError and loses their types, and its socket factory
# is told nothing of the request; so the request leaves its Dial here for the factory to fill.
current_dial: ContextVar[Dial | None] = ContextVar("current_dial", default=None)


class DialGuard:
    """Makes the sockets of the notifier's connector, and none for a refused address."""

    def __init__(self, policy: TargetPolicy) -> None:
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
