"""Measures each call: its duration by method and code, and how many are in flight."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.calls import current_call
from server.calls.context import Context, when_over
from server.calls.monitoring import CallMonitoring
from server.interceptors.wrapping import Around


class MeasureCalls(Around):
    """Measures every call once, health and reflection too."""

    def __init__(self, monitoring: CallMonitoring) -> None:
        self._monitoring = monitoring

    @asynccontextmanager
    async def around(self, method: str, streaming: bool, context: Context) -> AsyncIterator[None]:
        """Measures the call until gRPC has sent its last message; the code is found as in `AccessLog`."""
        call = current_call.get()
        # A trace that is not sampled is recorded nowhere: its id would lead to nothing.
        trace_id = call.trace.trace_id if call.trace is not None and call.trace.is_sampled else None
        measured = self._monitoring.begin(method, trace_id)
        finished = grpc.StatusCode.CANCELLED

        def over(_: Context) -> None:
            measured.end(context.code() or finished, call.caller.organization.name if call.caller else None)

        when_over(context, over)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            finished = grpc.StatusCode.UNKNOWN
            raise
        finished = grpc.StatusCode.OK
