"""The traces of the events of a transaction: a notification belongs to the trace of the event that caused it."""

from typing import Protocol

from runtime.tracing.context import TraceContext
from runtime.turns import Slices


class EventTraces(Protocol):
    """Finds the trace of the call that sent an event."""

    async def find_first(self, slices: Slices) -> None:
        """Prepares `trace_of`. The caller has begun a slice."""

    def trace_of(self, identity: tuple[str, str]) -> TraceContext | None:
        """The trace of an event, by customer id and event id; None if it has none, or is not of the transaction.

        The event id is empty where no event, but a change of the customer, is the cause.
        """
