"""Spans of this process, kept in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from runtime.tracing import spans
from runtime.tracing.recorder import OpenTelemetryRecorder


class Spans:
    """What was recorded so far."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of that name, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def names(self) -> list[str]:
        """The names of all spans."""
        return [span.name for span in self._exporter.get_finished_spans()]


@contextmanager
def recorded(sampler: Sampler | None = None) -> Iterator[Spans]:
    """Records the spans of this process inside the block."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.use(OpenTelemetryRecorder(provider))
    try:
        yield Spans(exporter)
    finally:
        spans.use(None)
        provider.shutdown()


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """The ids of a span's trace, of the span, and of its parent (empty for none)."""
    assert span.context is not None
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent
