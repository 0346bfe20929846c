"""Client certificates: the identities of a peer, by its own certificate or one that a trusted proxy has checked."""

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from server.calls.context import Context

FORWARDED_KEY = "x-forwarded-client-cert"
_CACHED = 1_024  # certificates

# A pair of an element: its value is quoted where it contains a comma, a semicolon or an equals sign.
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^,;"]*)')
_NAMES = ("uri", "dns")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who a peer is: SPIFFE ids and other URIs, then DNS names. end: from which on it is not valid, if known."""

    identities: tuple[str, ...]
    end: datetime | None = None


@dataclass(frozen=True)
class TrustedProxies:
    """The peers whose `x-forwarded-client-cert` is believed: by their own identity, or by their address."""

    identities: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> "TrustedProxies":
        """Entries are networks such as 10.1.0.0/16, and identities such as spiffe://acme.test/ns/mesh/sa/gateway."""
        identities, networks = set(), []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                identities.add(entry)
        return cls(frozenset(identities), tuple(networks))

    def include(self, peer: str, certificate: ClientCertificate | None) -> bool:
        """Whether a peer is one of them. peer: as gRPC names it, `ipv4:127.0.0.1:4711`."""
        if certificate is not None and self.identities & set(certificate.identities):
            return True
        address = _address(peer)
        return address is not None and any(address in network for network in self.networks)


def certificate_of(context: Context, proxies: TrustedProxies) -> ClientCertificate | None:
    """The certificate by which a call is identified; None if there is none.

    A trusted proxy speaks for the client whose certificate it has checked. Where it forwards none, the call has no
    certificate, since that of the proxy is not the client's.
    """
    own = _own(context)
    if not proxies.include(context.peer(), own):
        return own
    forwarded = [str(value) for key, value in context.invocation_metadata() or () if key == FORWARDED_KEY]
    return parse_forwarded(",".join(forwarded)) if forwarded else None


def parse_forwarded(header: str) -> ClientCertificate | None:
    """The identities in the last element of the header: the nearest proxy has written it. None if it has none."""
    elements = list(_elements(header))
    found = {name: [value for key, value in elements[-1] if key == name] for name in _NAMES} if elements else {}
    identities = tuple(value for name in _NAMES for value in found.get(name, ()) if value)
    return ClientCertificate(identities) if identities else None


def _elements(header: str) -> Iterator[list[tuple[str, str]]]:
    """The elements of the header, each with its pairs; nothing for a header that is not well-formed."""
    element: list[tuple[str, str]] = []
    elements, position = [element], 0
    while position < len(header):
        pair = _PAIR.match(header, position)
        if pair is None:
            return
        value = pair[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        element.append((pair[1].lower(), value))
        position = pair.end()
        if position < len(header):
            if header[position] == ",":
                element = []
                elements.append(element)
            elif header[position] != ";":
                return
            position += 1
            while position < len(header) and header[position] == " ":
                position += 1
    yield from elements


def _own(context: Context) -> ClientCertificate | None:
    facts = context.auth_context()
    pem = next(iter(facts.get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    identities = [value.decode() for name in ("peer_uri", "peer_dns") for value in facts.get(name, ())]
    return ClientCertificate(tuple(identities), _end_of(pem))


@functools.lru_cache(_CACHED)
def _end_of(pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    host = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
