"""Client certificates: the identities of a peer, by its own certificate or one that a trusted proxy has checked."""

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from server.calls.context import Context
from server.calls.forwarded import Forwarded

FORWARDED_KEY = "x-forwarded-client-cert"
_CACHED = 1_024  # certificates

# A pair of an element: its value is quoted where it contains a comma, a semicolon or an equals sign.
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^,;"]*)')


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
        if certificate is not None and not self.identities.isdisjoint(certificate.identities):
            return True
        if not self.networks:  # an address takes longer to parse than all the rest of the check
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self.networks)


def certificate_of(
    context: Context, proxies: TrustedProxies, forwarded: Forwarded | None = None
) -> ClientCertificate | None:
    """The certificate by which a call is identified; None if there is none. forwarded: of a call of the front.

    A trusted proxy speaks for the client whose certificate it has checked. Where it forwards none, the call has no
    certificate, since that of the proxy is not the client's.
    """
    checked = [str(value) for key, value in context.invocation_metadata() or () if key == FORWARDED_KEY]
    if forwarded is not None:
        return of_forwarded(forwarded, checked, proxies)
    return _of_peer(context.peer(), _own(context), checked, proxies)


def of_forwarded(forwarded: Forwarded, checked: Sequence[str], proxies: TrustedProxies) -> ClientCertificate | None:
    """The same of a call of the front. checked: the values of `x-forwarded-client-cert` that the front has got."""
    own = None if forwarded.certificate is None else _read(forwarded.certificate)
    return _of_peer(forwarded.peer, own, checked, proxies)


def _of_peer(
    peer: str, own: ClientCertificate | None, checked: Sequence[str], proxies: TrustedProxies
) -> ClientCertificate | None:
    if not proxies.include(peer, own):
        return own
    return parse_forwarded(",".join(checked)) if checked else None


def parse_forwarded(header: str) -> ClientCertificate | None:
    """The identities in the last element of the header: the nearest proxy has written it. None if it has none."""
    elements = list(_elements(header))
    last = elements[-1] if elements else []
    identities = _identities(*([value for key, value in last if key == name] for name in ("uri", "dns")))
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
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return None if pem is None else _read(pem)


@functools.lru_cache(_CACHED)
def _read(pem: bytes) -> ClientCertificate:
    """Reads the names from the certificate itself.

    gRPC's list of them (`peer_uri`, `peer_dns`) ends each name at a NUL byte: a certificate for
    `shop.test\\0.evil.test` would identify shop.test.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return ClientCertificate((), certificate.not_valid_after_utc)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns_names = names.get_values_for_type(x509.DNSName)
    return ClientCertificate(_identities(uris, dns_names), certificate.not_valid_after_utc)


def _identities(uris: Iterable[str], dns_names: Iterable[str]) -> tuple[str, ...]:
    """The names that can be identities, URIs first.

    A URI has a colon and a DNS name has none. So an authority that signs any DNS name does not sign a SPIFFE id.
    """
    names = (*(uri for uri in uris if ":" in uri), *(name for name in dns_names if ":" not in name))
    return tuple(name for name in names if name and name.isprintable())


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    host = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
