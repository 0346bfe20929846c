"""What a front, such as the HTTP port, says to the server behind it about the caller of each call that it forwards.

The front calls the server through a socket of the process. There it sends, as metadata, a secret that only this
process has, and from where its own caller comes. A server believes these metadata nowhere else.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

SECRET_KEY = "x-tidemark-forwarding"
PEER_KEY = "x-tidemark-forwarded-peer"  # as gRPC names a peer: ipv4:127.0.0.1:4711
USER_AGENT_KEY = "x-tidemark-forwarded-user-agent"
CERTIFICATE_KEY = "x-tidemark-forwarded-certificate-bin"  # of the caller, in DER; absent: it has shown none

MAX_USER_AGENT = 256  # characters


class CannotListenFront(Exception):
    """A front cannot listen on its address."""

    @classmethod
    def on(cls, host: str, port: int) -> "CannotListenFront":
        """The error of an address."""
        return cls(
            f"cannot listen on {host} port {port} for HTTP: another process uses the port, or this machine does not"
            " have the address"
        )


@dataclass(frozen=True)
class Forwarding:
    """The socket of a server for calls of its front. target: as gRPC names it. secret: what these calls carry."""

    target: str
    secret: str


@contextmanager
def forwarding() -> Iterator[Forwarding]:
    """A socket, and a new secret, while the block runs.

    The socket is in a folder that no other user of the machine can enter. Where nothing can be written, it is an
    abstract one of Linux, which has no rights of its own: only the secret is between it and its network namespace.
    """
    secret = secrets.token_urlsafe(32)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemark-"))  # with the mode 0700
        except OSError:
            target = f"unix-abstract:tidemark-{secrets.token_hex(16)}"
        else:
            target = f"unix:{folder}/grpc"
        yield Forwarding(target, secret)
