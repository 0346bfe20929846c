"""Counts the calls in flight, so that a drain ends as soon as the last one has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.calls import call as calls
from server.calls.lifecycle import InFlight
from server.interceptors.around import Around, Context, when_over


class CountInFlight(Around):
    """Counts every call of the API; a stranger's health watch must not hold up a drain."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Counts the call until gRPC is done with it, its last message sent."""
        if not calls.current().is_infrastructure:
            self._in_flight.enter()
            # Not in `finally`: a generator that was dropped in the middle of a write runs it only when Python
            # collects it, while gRPC calls back at once.
            when_over(context, lambda _: self._in_flight.leave())
        yield
