"""Measures each call: its duration by method and code, and how many are in flight."""

from server.calls import current_call
from server.calls.context import Context, when_over
from server.calls.monitoring import CallMonitoring
from server.interceptors.wrapping import Before


class MeasureCalls(Before):
    """Measures every call once, health and reflection too."""

    def __init__(self, monitoring: CallMonitoring) -> None:
        self._monitoring = monitoring

    def before(self, method: str, context: Context) -> None:
        """Measures the call until gRPC has sent its last message; the code is found as in `AccessLog`."""
        call = current_call.get()
        # A trace that is not sampled is recorded nowhere: its id would lead to nothing.
        trace_id = call.trace.trace_id if call.trace is not None and call.trace.is_sampled else None
        measured = self._monitoring.begin(method, trace_id)

        def over(_: object) -> None:
            measured.end(context.code() or call.outcome, call.caller.organization.name if call.caller else None)

        when_over(over)
