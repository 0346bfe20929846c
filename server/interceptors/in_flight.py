"""Counts the calls in flight, so that a drain ends as soon as the last of them has ended."""

from server.calls import current_call
from server.calls.context import Context, when_over
from server.calls.lifecycle import CallsInFlight
from server.interceptors.wrapping import Before


class CountInFlight(Before):
    """Counts every call of the API. A drain must not wait for the health watch of a client."""

    def __init__(self, in_flight: CallsInFlight) -> None:
        self._in_flight = in_flight

    def before(self, method: str, context: Context) -> None:
        """Counts the call until gRPC has sent its last message."""
        if not current_call.get().is_infrastructure:
            self._in_flight.enter()
            when_over(lambda _: self._in_flight.leave())
