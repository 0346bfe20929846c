"""What one job of a rival does: post a body with its signature, as the notifier would."""

import base64
import hashlib
import hmac
import time

import aiohttp

HEADERS = {"Accept": "*/*", "Content-Type": "application/json", "User-Agent": "rival"}


class Poster:
    """One session and one secret for all jobs; made inside the event loop."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)

    async def post(self, url: str, one: str, body: str) -> None:
        """Posts `body` as notification `one`; raises what a queue would take for a failure."""
        data = body.encode()
        timestamp = str(int(time.time()))
        digest = hmac.digest(self._key, f"{one}.{timestamp}.".encode() + data, hashlib.sha256)
        headers = HEADERS | {
            "webhook-id": one,
            "webhook-timestamp": timestamp,
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        }
        async with self._session.post(url, data=data, headers=headers) as response:
            await response.read()
            response.raise_for_status()

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()
