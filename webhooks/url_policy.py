"""The URL policy: to which URLs, and to which addresses behind them, webhooks may be sent.

The URL is checked when an endpoint is saved, so that the answer can say what is wrong. The address is checked again
whenever a connection is opened, because only then is it known which address the name stands for.
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

# Not by ipaddress.is_global, which is true for several of these (multicast, 192.88.99.0/24, 6to4 …).
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
# The parts of a URL after RFC 3986: authority, path and query, fragment.
_PARTS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
# Characters that no URL may contain after RFC 3986; a request line that contained one would not be HTTP.
_NOT_IN_A_URL = re.compile(r"""[^!#-;=?-\[\]_a-z~]""")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


def request_target(url: str) -> str:
    """The request target of a request to an http or https URL: path and query, exactly as they are written.

    Only characters that no URL may hold, those outside of ASCII among them, are percent-encoded. Raises ValueError.
    """
    parts = _PARTS.fullmatch(url)
    if parts is None:
        raise ValueError("not an absolute URL")
    target = parts[2] if parts[2].startswith("/") else f"/{parts[2]}"
    return _NOT_IN_A_URL.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), target)


class UrlRefused(Exception):
    """The policy refuses the URL of a webhook; the message says which rule the URL breaks."""


@dataclass(frozen=True)
class UrlPolicy:
    """The operator's choice of the URLs and addresses that webhooks may be sent to.

    allow_http: permits URLs without TLS. allow_networks: permits addresses that are refused otherwise, for receivers
    inside the operator's own network.
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

        Raises UrlRefused with one sentence about the first rule it breaks.
        """
        if not url:
            raise UrlRefused("is required")
        if len(url) > MAX_URL_LENGTH:
            raise UrlRefused(f"is longer than {MAX_URL_LENGTH} characters")
        if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url):
            raise UrlRefused("contains a blank or a control character")
        try:
            parsed = URL(url)
            host, port = parsed.host, parsed.port
        except ValueError as error:
            raise UrlRefused("is not a URL") from error
        self._check_scheme(parsed.scheme)
        parts = _PARTS.fullmatch(url)
        if "@" in (parts[1] if parts else ""):
            raise UrlRefused("must not carry a user name or a password")
        if "#" in url:
            raise UrlRefused("must not carry a fragment (#…): it would never be sent")
        if parts is None or not host:
            raise UrlRefused("names no host")
        if "%" in parts[1]:
            raise UrlRefused("percent-encodes its host: write the name itself")
        if port is None or not (port in WEB_PORTS or port >= FIRST_UNPRIVILEGED_PORT):
            raise UrlRefused(f"uses port {port}: allowed are 80, 443 and {FIRST_UNPRIVILEGED_PORT} to 65535")
        self._check_host(host)

    def _check_scheme(self, scheme: str) -> None:
        if scheme == "https" or (scheme == "http" and self.allow_http):
            return
        if scheme == "http":
            raise UrlRefused("must begin with https://: this service does not send webhooks without TLS")
        raise UrlRefused("must begin with https://")

    def _check_host(self, host: str) -> None:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            reason = self.refusal(host)
            if reason is not None:
                raise UrlRefused(f"leads to an address that is refused: {reason}")
            return
        labels = host.rstrip(".").split(".")
        # The resolver reads 0x7f.1 and 2130706433 as IPv4 addresses and not as names.
        if _is_number(labels[-1]):
            raise UrlRefused(f"writes its address as {host}: write four decimal numbers, or a name")
        # A single label is a name inside a private network; allow_networks permits these.
        if len(labels) == 1 and not self.allow_networks:
            raise UrlRefused(f"names the host {host}, which is no public name")


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
