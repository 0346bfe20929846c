"""Gives each call of the API its trace: that of its metadata, or one that begins here where tracing is on."""

import grpc

from runtime.tracing import current, spans
from runtime.tracing.context import of_metadata
from runtime.tracing.spans import Kind, Span
from server.authentication.access import ACCESS
from server.calls import current_call
from server.calls.context import Context, when_over
from server.calls.monitoring import OTHER
from server.interceptors.wrapping import Before

# The codes that are errors of a server, by the conventions of OpenTelemetry. Others are answers to its caller.
_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Tracing(Before):
    """Reads `traceparent` and `tracestate`. A span is recorded only where tracing is on.

    A stream has one span and one trace, however many requests it has. Calls of health and reflection have none.
    """

    def before(self, method: str, context: Context) -> None:
        """Sets the trace of the call; ends its span when gRPC calls back."""
        call = current_call.get()
        if call.is_infrastructure:
            return
        parent = of_metadata(context.invocation_metadata() or ())
        # Callers can invent any number of methods, without a key, too.
        name = method.removeprefix("/") if method in ACCESS else OTHER
        span = spans.begin(name, Kind.SERVER, parent, attributes={"rpc.system.name": "grpc", "rpc.method": name})
        call.trace = span.trace or parent
        if call.trace is not None:
            current.begin(call.trace)
        if span.is_recorded:
            when_over(lambda _: _end(span, call, context.code() or call.outcome))


def _end(span: Span, call: current_call.Call, code: grpc.StatusCode) -> None:
    span.note("rpc.response.status_code", code.name)
    span.note("tidemark.request_id", call.request_id)
    if call.caller is not None:
        span.note("tidemark.organization_id", call.caller.organization.organization_id)
    if code in _ERRORS:
        span.fail(code.name)
    span.end()
