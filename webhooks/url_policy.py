"""Where a caller may make this service connect to: rules for a webhook's URL and for the address behind it.

The URL is checked when an endpoint is saved, so that its owner learns at once what is wrong. The address is
checked again whenever a connection is opened, because only then is it known where the name leads.
"""

import ipaddress
import re
from dataclasses import dataclass

from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_LENGTH = 2_048  # characters
WEB_PORTS = frozenset({80, 443})
FIRST_UNPRIVILEGED_PORT = 1_024  # below it, and beside the web's own, ports belong to other protocols

# ipaddress.is_global says yes to several of these (multicast, 192.88.99.0/24, 6to4 …), so the list is ours.
_REFUSED_IPV4 = {
    ipaddress.IPv4Network(network): what
    for network, what in {
        "0.0.0.0/8": "this host",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared address space",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "a cloud's own service",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved for protocols",
        "192.0.2.0/24": "for documentation",
        "192.31.196.0/24": "reserved for AS112",
        "192.52.193.0/24": "reserved for AMT",
        "192.88.99.0/24": "a 6to4 relay",
        "192.168.0.0/16": "private",
        "192.175.48.0/24": "reserved for AS112",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "for documentation",
        "203.0.113.0/24": "for documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is handed out as public so far
_REFUSED_IPV6 = {
    ipaddress.IPv6Network(network): what
    for network, what in {
        "2001::/23": "reserved for protocols",
        "2001:db8::/32": "for documentation",
        "2620:4f:8000::/48": "reserved for AS112",
        "3fff::/20": "for documentation",
    }.items()
}
# A URL as RFC 3986 takes it apart: authority, path and query, fragment.
_PARTS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
# What RFC 3986 lets stand nowhere in a URL; a request line that held it would not be HTTP.
_NOT_IN_A_URL = re.compile(r"""[^!#-;=?-\[\]_a-z~]""")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


def request_target(url: str) -> str:
    """What a request to an http or https URL names in its first line: the path and the query, exactly as given.

    Only characters that no URL may hold, those outside of ASCII among them, are percent-encoded. Raises ValueError.
    """
    parts = _PARTS.fullmatch(url)
    if parts is None:
        raise ValueError("not an absolute URL")
    target = parts[2] if parts[2].startswith("/") else f"/{parts[2]}"
    return _NOT_IN_A_URL.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), target)


class TargetRefused(Exception):
    """The URL must not be used as a webhook's target; the message says which rule it breaks."""


@dataclass(frozen=True)
class TargetPolicy:
    """The operator's choice of where webhooks may go.

    `allow_networks` opens addresses that are refused otherwise, for receivers inside the operator's own
    network; `allow_http` permits URLs without TLS.
    """

    allow_http: bool = False
    allow_networks: tuple[Network, ...] = ()

    def refusal(self, address: str) -> str | None:
        """Why a connection to `address` (an IP address in text) is refused; None when it is allowed."""
        try:
            outer = ipaddress.ip_address(address)
        except ValueError:
            return f"{address} is not an IP address"
        inner = _unwrap(outer)
        if any(candidate in network for network in self.allow_networks for candidate in (outer, inner)):
            return None
        what = _special(inner)
        if what is None:
            return None
        shown = str(outer) if outer == inner else f"{outer} (that is, {inner})"
        return f"{shown} is not a public address ({what})"

    def check_url(self, url: str) -> None:
        """Checks a URL that a caller wants to save.

        Raises TargetRefused with one sentence about the first rule it breaks.
        """
        if not url:
            raise TargetRefused("is required")
        if len(url) > MAX_URL_LENGTH:
            raise TargetRefused(f"is longer than {MAX_URL_LENGTH} characters")
        if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url):
            raise TargetRefused("contains a blank or a control character")
        try:
            parsed = URL(url)
            host, port = parsed.host, parsed.port
        except ValueError as error:
            raise TargetRefused("is not a URL") from error
        self._check_scheme(parsed.scheme)
        parts = _PARTS.fullmatch(url)
        if "@" in (parts[1] if parts else ""):
            raise TargetRefused("must not carry a user name or a password")
        if "#" in url:
            raise TargetRefused("must not carry a fragment (#…): it would never be sent")
        if parts is None or not host:
            raise TargetRefused("names no host")
        if "%" in parts[1]:
            raise TargetRefused("percent-encodes its host: write the name itself")
        if port is None or not (port in WEB_PORTS or port >= FIRST_UNPRIVILEGED_PORT):
            raise TargetRefused(f"uses port {port}: allowed are 80, 443 and {FIRST_UNPRIVILEGED_PORT} to 65535")
        self._check_host(host)

    def _check_scheme(self, scheme: str) -> None:
        if scheme == "https" or (scheme == "http" and self.allow_http):
            return
        if scheme == "http":
            raise TargetRefused("must begin with https://: this service does not send webhooks without TLS")
        raise TargetRefused("must begin with https://")

    def _check_host(self, host: str) -> None:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            reason = self.refusal(host)
            if reason is not None:
                raise TargetRefused(f"leads to an address that is refused: {reason}")
            return
        labels = host.rstrip(".").split(".")
        # The resolver reads 0x7f.1 and 2130706433 as IPv4 addresses; nobody means a name by them.
        if _is_number(labels[-1]):
            raise TargetRefused(f"writes its address as {host}: write four decimal numbers, or a name")
        # A single label is a name inside somebody's network, which only its operator can open.
        if len(labels) == 1 and not self.allow_networks:
            raise TargetRefused(f"names the host {host}, which is no public name")


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _special(address: Address) -> str | None:
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _REFUSED_IPV4.items() if address in network), None)
    if address not in _IPV6_UNICAST:
        return "loopback" if address.is_loopback else "outside of public unicast"
    return next((what for network, what in _REFUSED_IPV6.items() if address in network), None)


def _is_number(label: str) -> bool:
    if label[:2].lower() == "0x":
        return all(character in "0123456789abcdefABCDEF" for character in label[2:])
    return label.isdecimal()
