"""Calls that the front of this process forwards: who its own caller is."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.forwarding import CERTIFICATE_KEY, PEER_KEY, SECRET_KEY, USER_AGENT_KEY, Forwarding

# Of each peer that calls through a socket of the machine.
SOCKET = "unix"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The caller of the front. peer: as gRPC names it. certificate: in PEM; None: it has shown none."""

    peer: str
    user_agent: str
    certificate: bytes | None


def forwarded_by(metadata: Iterable[tuple[str, Any]], forwarding: Forwarding | None) -> Forwarded | None:
    """The caller of a call that the front of this process forwards; None if the call is not of the front."""
    if forwarding is None:
        return None
    found = {key: value for key, value in metadata if key.startswith("x-tidemark-forward")}
    if not hmac.compare_digest(str(found.get(SECRET_KEY, "")).encode(), forwarding.secret.encode()):
        return None
    der = found.get(CERTIFICATE_KEY)
    return Forwarded(
        str(found.get(PEER_KEY, "")),
        str(found.get(USER_AGENT_KEY, "")),
        None if der is None else x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM),
    )
