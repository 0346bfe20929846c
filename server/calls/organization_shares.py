"""Each organization's share of the calls and usage streams of this process."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from generated.tidemark.v1 import error_reason_pb2
from runtime import turns
from runtime.fair_semaphore import FairSemaphore
from server.calls.errors import ResourceExhausted, exhausted_by_organization

RETRY_CALLS = timedelta(milliseconds=500)


class OrganizationShares:
    """Counts the calls and usage streams of each organization.

    gate: the calls that are served at the same time; each uses a connection to the database. most_of_one: calls of
    one organization that are served or wait. streams_of_one: usage streams of one organization. More are refused.
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
        """Serves a call for the time of the block, after its organization's turn. Raises ResourceExhausted."""
        async with self.counted(organization_id), self._gate.seat(organization_id):
            started = time.perf_counter()
            try:
                yield
            finally:
                self._gate.charge(organization_id, time.perf_counter() - started)

    @asynccontextmanager
    async def counted(self, organization_id: int) -> AsyncIterator[None]:
        """Counts a call that uses no connection of its own. Raises ResourceExhausted."""
        self._calls.add(organization_id)
        shared = turns.of_loop()
        shared.begin_call(organization_id)
        try:
            yield
        finally:
            shared.end_call(organization_id)
            self._calls.subtract(organization_id)

    def open_stream(self, organization_id: int) -> "CountedStream":
        """Counts a stream until it is closed. Raises ResourceExhausted."""
        self._streams.add(organization_id)
        return CountedStream(self._streams, organization_id)


class CountedStream:
    """A stream that counts until it is closed."""

    def __init__(self, count: "_Count", organization_id: int) -> None:
        self._count = count
        self._organization_id = organization_id
        self._open = True

    def close(self) -> None:
        """Ends the count; does nothing when the stream is closed."""
        if self._open:
            self._open = False
            self._count.subtract(self._organization_id)


class _Count:
    """How many calls (or streams) each organization has; at most `limit`."""

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
                f"this organization has {own} open {self._what} on this server, its share of the server: try again"
                " a little later, with fewer at the same time",
                metadata={"share_of": "organization", "limit": str(self._limit)},
                exhausted=exhausted_by_organization(f"{self._limit} open {self._what} on this server"),
                retry_after=RETRY_CALLS,
            )
        self._own[organization_id] = own + 1

    def subtract(self, organization_id: int) -> None:
        self._own[organization_id] -= 1
        if not self._own[organization_id]:
            del self._own[organization_id]
