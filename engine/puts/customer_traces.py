"""The traces of the calls whose changed customers are evaluated now, since the evaluation serves several calls."""

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.tracing.context import TraceContext
from runtime.tracing.current import current_trace
from runtime.turns import Slices


class CustomerTraces:
    """The traces of the customers of one organization. Calls without a trace leave nothing here."""

    def __init__(self) -> None:
        self._of: dict[str, TraceContext] = {}

    @contextmanager
    def of_this_call(self, customer_id: str) -> Iterator[None]:
        """Inside the block, what is found for the customer belongs to the trace of this call."""
        trace = current_trace()
        if trace is None:
            yield
            return
        self._of[customer_id] = trace
        try:
            yield
        finally:
            if self._of.get(customer_id) is trace:
                del self._of[customer_id]

    async def find_first(self, slices: Slices) -> None:
        """See `EventTraces`; there is nothing to prepare."""

    def trace_of(self, identity: tuple[str, str]) -> TraceContext | None:
        """The trace of a customer, which is the first part of the identity."""
        return self._of.get(identity[0])

    def __bool__(self) -> bool:
        return bool(self._of)
