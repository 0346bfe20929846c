"""Calls: how many of one organization's may be in the server, and how many of them are served at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from generated.tidemark.v1 import error_reason_pb2
from runtime.fair_semaphore import FairSemaphore
from server.calls.errors import ResourceExhausted

RETRY_CALLS = timedelta(milliseconds=500)


class CallShares:
    """Counts the calls of each organization.

    gate: those that are served at a time, and so use a connection to the database. most_of_one: calls of one
    organization that are served or wait; streams_of_one: its usage streams. More are refused.
    """

    def __init__(self, gate: FairSemaphore, *, most_of_one: int, streams_of_one: int) -> None:
        self._gate = gate
        self._calls = _Count("calls", most_of_one)
        self._streams = _Count("usage streams", streams_of_one)

    @property
    def open(self) -> int:
        """Calls and streams of all organizations that have begun and not ended."""
        return self._calls.total + self._streams.total

    @asynccontextmanager
    async def served(self, organization_id: int) -> AsyncIterator[None]:
        """Serves a call for as long as the block lasts, in its organization's turn. Raises ResourceExhausted."""
        async with self.counted(organization_id), self._gate.seat(organization_id):
            yield

    @asynccontextmanager
    async def counted(self, organization_id: int) -> AsyncIterator[None]:
        """Counts a call that uses no connection of its own. Raises ResourceExhausted."""
        self._calls.add(organization_id)
        try:
            yield
        finally:
            self._calls.subtract(organization_id)

    def open_stream(self, organization_id: int) -> "OpenStream":
        """Counts a stream until that is closed. Raises ResourceExhausted."""
        self._streams.add(organization_id)
        return OpenStream(self._streams, organization_id)


class OpenStream:
    """A stream that counts until it is closed, however often it is."""

    def __init__(self, count: "_Count", organization_id: int) -> None:
        self._count = count
        self._organization_id = organization_id
        self._open = True

    def close(self) -> None:
        """The stream counts no more."""
        if self._open:
            self._open = False
            self._count.subtract(self._organization_id)


class _Count:
    """How many of something each organization has, at the most `limit`."""

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._own: dict[int, int] = {}

    @property
    def total(self) -> int:
        return sum(self._own.values())

    def add(self, organization_id: int) -> None:
        own = self._own.get(organization_id, 0)
        if own >= self._limit:
            raise ResourceExhausted(
                error_reason_pb2.ERROR_REASON_OVERLOADED,
                f"{own} {self._what} of this organization are open on this server, which is its share of it:"
                " try again a little later, with fewer at a time",
                metadata={"share_of": "organization", "limit": str(self._limit)},
                retry_after=RETRY_CALLS,
            )
        self._own[organization_id] = own + 1

    def subtract(self, organization_id: int) -> None:
        self._own[organization_id] -= 1
        if not self._own[organization_id]:
            del self._own[organization_id]
