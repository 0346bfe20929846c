"""How many keys a client may try: a limit on refused sign-ins, by the address that they come from."""

import ipaddress
from collections.abc import Callable, Sequence

from aiohttp import web

MOST_REFUSED = 20  # keys of one address within WINDOW
WINDOW = 60.0  # seconds
MAX_REMEMBERED = 10_000  # addresses; the oldest is forgotten first
_PREFIX = 64  # bits of an IPv6 address that one client has to itself

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Attempts:
    """Counts the keys that were refused. Keys cannot be guessed: this keeps the work of guesses from the server."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._refused: dict[str, tuple[float, int]] = {}  # the end of the window, and how many

    def take(self, client: str) -> float:
        """Counts a try. Returns 0, or the seconds until the client may try again; then the try does not count.

        A try counts before the server is asked, so that many at the same time are not more than many in a row.
        """
        now = self._seconds()
        end, count = self._refused.get(client, (0.0, 0))
        if end <= now:
            end, count = now + WINDOW, 0
        elif count >= MOST_REFUSED:
            return end - now
        self._refused.pop(client, None)
        while len(self._refused) >= MAX_REMEMBERED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[client] = end, count + 1
        return 0.0

    def give_back(self, client: str) -> None:
        """A try was not refused: it does not count."""
        end, count = self._refused.get(client, (0.0, 0))
        if count > 1:
            self._refused[client] = end, count - 1
        else:
            self._refused.pop(client, None)


def client_of(request: web.Request, proxies: Sequence[Network]) -> str:
    """The address of the client; of IPv6 its network.

    Of a request of a trusted proxy it is the last address of X-Forwarded-For, which that proxy has written.
    """
    peer = request.remote or ""
    found = _address(peer)
    if found is not None and any(found in one for one in proxies):
        said = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
        found = _address(said) or found
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _PREFIX), strict=False))
    return peer if found is None else str(found)


def networks_of(texts: Sequence[str]) -> tuple[Network, ...]:
    """Those of the texts that are networks. The others name identities of certificates."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(found)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket of IPv6 shows the addresses of IPv4 like this.
    return (isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped) or found
