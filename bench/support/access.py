"""How a client reaches a server: with or without TLS and an API key."""

import asyncio
from dataclasses import dataclass

import grpc

# Each channel has its own connection, like the channels of different clients.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


@dataclass(frozen=True)
class Access:
    """A server, and what a client needs to call it.

    authority: the certificate of the authority that signed the server's, in PEM; empty: no TLS. key: an API key.
    """

    server: str
    authority: bytes = b""
    key: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def channel(self) -> grpc.aio.Channel:
        """A channel with its own connection."""
        if self.authority:
            credentials = grpc.ssl_channel_credentials(self.authority)
            return grpc.aio.secure_channel(self.server, credentials, options=_OPTIONS)
        return grpc.aio.insecure_channel(self.server, options=_OPTIONS)

    async def channels(self, number: int) -> list[grpc.aio.Channel]:
        """Channels that are connected."""
        channels = [self.channel() for _ in range(number)]
        await asyncio.gather(*(one.channel_ready() for one in channels))
        return channels
