"""`tidemark listen --forward-to URL`: a webhook is posted there, the same bytes with the same signature."""

import time
from collections.abc import Mapping
from types import TracebackType

import aiohttp
from yarl import URL

TIMEOUT = 15.0  # seconds, as long as a notifier waits
UNREACHABLE = 502
LOST = 504
# Headers of the connection between notifier and listener, and those that the client of the next connection sets.
_OWN = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Forwarder:
    """Posts webhooks to a URL; an async context manager, which has the connections."""

    def __init__(self, url: str) -> None:
        self._url = URL(url)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Forwarder":
        # A proxy of the environment is no way to a program on this machine.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT), trust_env=False, auto_decompress=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def forward(self, path: URL, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Posts a webhook; returns the status for the notifier, and what happened, for people.

        502 stands for a URL that cannot be reached, and 504 for one that does not answer: the notifier tries again.
        """
        assert self._session is not None
        sent = {name: value for name, value in headers.items() if name.lower() not in _OWN}
        url = self._url if path.path in ("", "/") else self._url.join(URL(path.path.lstrip("/")))
        begin = time.monotonic()
        try:
            async with self._session.post(url, data=body, headers=sent, allow_redirects=False) as answer:
                await answer.read()
                return answer.status, f"{answer.status} in {_milliseconds(begin)} ms"
        except TimeoutError:
            return LOST, f"no answer within {TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return UNREACHABLE, f"cannot be reached: {error}"


def _milliseconds(begin: float) -> int:
    return round((time.monotonic() - begin) * 1000)
