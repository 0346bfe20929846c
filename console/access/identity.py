"""Who the visitor is, as the server says: organization, key, roles. Remembered for some seconds for each key."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from console.access.api import Calls
from generated.tidemark.v1.account_service_pb2 import GetCallerRequest, GetCallerResponse
from generated.tidemark.v1.role_pb2 import ROLE_ADMIN, ROLE_EDITOR, ROLE_READER

LIFETIME = 5.0  # seconds; a key that is revoked or changed shows so at the latest after this time
MAX_REMEMBERED = 1_000  # keys


@dataclass(frozen=True)
class Viewer:
    """The visitor. customer_id: the only customer that the key may read; empty: all."""

    organization: str
    key_id: str
    key_name: str
    roles: frozenset[int]
    customer_id: str = ""

    @property
    def may_read(self) -> bool:
        """Whether it may see the pages."""
        return bool(self.roles & {ROLE_READER, ROLE_EDITOR, ROLE_ADMIN})

    @property
    def may_edit(self) -> bool:
        """Whether buttons that change something are shown. The server decides whether they work."""
        return bool(self.roles & {ROLE_EDITOR, ROLE_ADMIN}) and not self.customer_id

    @property
    def may_administrate(self) -> bool:
        """Whether it may do what cannot be taken back."""
        return ROLE_ADMIN in self.roles and not self.customer_id

    @property
    def is_limited(self) -> bool:
        """Whether it sees one customer only."""
        return bool(self.customer_id)


class Viewers:
    """Asks the server who a key belongs to."""

    def __init__(self, seconds: Callable[[], float] | None = None) -> None:
        self._seconds = seconds or asyncio.get_running_loop().time
        self._remembered: dict[bytes, tuple[float, Viewer]] = {}

    async def of(self, calls: Calls, key: str | None) -> Viewer:
        """The visitor with this key. Raises ApiError."""
        name = hashlib.sha256((key or "").encode()).digest()
        known = self._remembered.get(name)
        if known is not None and known[0] > self._seconds():
            return known[1]
        try:
            viewer = _viewer(await calls(calls.api.accounts.GetCaller, GetCallerRequest()))
        except Exception:
            self._remembered.pop(name, None)
            raise
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        self._remembered[name] = self._seconds() + LIFETIME, viewer
        return viewer


def _viewer(answer: GetCallerResponse) -> Viewer:
    return Viewer(
        answer.organization, answer.key_id, answer.key_display_name, frozenset(answer.roles), answer.customer_id
    )
