"""Spans recorded by the SDK of OpenTelemetry. This module needs the extra `tracing`."""

from collections.abc import Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from runtime.tracing import current
from runtime.tracing.context import TraceContext
from runtime.tracing.spans import Kind, Span, Value

SCOPE = "tidemark"

_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.INTERNAL: SpanKind.INTERNAL}
_EMPTY = Context()


class OpenTelemetryRecorder:
    """Begins spans of a tracer provider, whose sampler decides which of them are recorded."""

    def __init__(self, provider: TracerProvider, version: str = "") -> None:
        self._tracer = provider.get_tracer(SCOPE, version)

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span:
        """See `Recorder.begin`."""
        # An explicit context: that of the running code may belong to an instrumentation of a library.
        context = _EMPTY
        if parent is not None:
            context = otel.set_span_in_context(NonRecordingSpan(_span_context(parent)), _EMPTY)
        return _RecordedSpan(
            self._tracer.start_span(
                name,
                context,
                _KINDS[kind],
                attributes,
                [Link(_span_context(link)) for link in links],
                record_exception=False,
            )
        )


class _RecordedSpan(Span):
    """A span of the SDK."""

    __slots__ = ("_span", "_token", "_trace")

    def __init__(self, span: otel.Span) -> None:
        self._span = span
        self._trace = _trace_context(span.get_span_context())
        self._token: Token[TraceContext | None] | None = None

    @property
    def trace(self) -> TraceContext | None:
        return self._trace

    @property
    def is_recorded(self) -> bool:
        return self._span.is_recording()

    def note(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def fail(self, kind: str) -> None:
        # Not the message: messages of the driver contain rows.
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self._span.end()

    def __enter__(self) -> Self:
        self._token = current.begin(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            current.end(self._token)
            self._token = None
        if kind is not None:
            self.fail(kind.__qualname__)
        self.end()


def _span_context(trace: TraceContext) -> SpanContext:
    state = TraceState.from_header([trace.state]) if trace.state else None
    return SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(trace.flags),
        trace_state=state,
    )


def _trace_context(context: SpanContext) -> TraceContext:
    state = context.trace_state.to_header() if context.trace_state else ""
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), state)
