"""Spans: nothing is recorded while tracing is off, and the sampler of the caller is honoured when it is on."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode

from runtime.tracing import current, spans
from runtime.tracing.current import current_trace, current_trace_id
from runtime.tracing.spans import NO_SPAN, Kind
from tests.support.tracing.contexts import context
from tests.support.tracing.spans_in_memory import ids, recorded

CORE = (
    "import cli.main, cli.serving.serve, cli.serving.notify, server.process, notifier.process,"
    " runtime.trace_export, sys"
)
NOT_IMPORTED = "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"


def test_nothing_is_recorded_while_tracing_is_off() -> None:
    assert not spans.are_recorded()
    span = spans.begin("call", Kind.SERVER, context(1))
    assert span is NO_SPAN
    assert spans.within("part") is NO_SPAN
    with span:
        span.note("a", 1)
        span.event("b")
        span.fail("c")
        assert current_trace() is None
    assert (span.trace, span.is_recorded) == (None, False)


def test_the_core_imports_nothing_of_opentelemetry() -> None:
    subprocess.run([sys.executable, "-c", f"{CORE}; {NOT_IMPORTED}"], check=True)


def test_a_span_continues_the_trace_of_its_parent() -> None:
    with recorded() as found:
        with spans.begin("call", Kind.SERVER, context(7, state="a=1"), attributes={"one": 1}) as span:
            span.note("two", True)
            span.event("half")
            assert current_trace() == span.trace
            assert current_trace_id() == context(7).trace_id
            with spans.within("part") as part:
                assert current_trace() == part.trace
        assert current_trace() is None
    call, part_of_it = found.named("call")[0], found.named("part")[0]
    assert ids(call)[::2] == (context(7).trace_id, context(7).span_id)
    assert ids(part_of_it) == (context(7).trace_id, ids(part_of_it)[1], ids(call)[1])
    assert call.kind is SpanKind.SERVER
    assert dict(call.attributes or {}) == {"one": 1, "two": True}
    assert [event.name for event in call.events] == ["half"]
    assert span.trace is not None
    assert (span.trace.state, span.trace.is_sampled) == ("a=1", True)


def test_a_span_without_a_parent_begins_a_trace() -> None:
    with recorded() as found:
        span = spans.begin("call", Kind.SERVER, None)
        span.end()
    assert span.trace is not None
    assert span.trace.is_sampled
    assert ids(found.named("call")[0]) == (span.trace.trace_id, span.trace.span_id, "")


def test_a_part_of_work_without_a_trace_is_not_recorded() -> None:
    with recorded() as found:
        assert spans.within("part") is NO_SPAN
    assert found.names() == []


def test_a_span_of_a_caller_that_does_not_sample_is_not_recorded() -> None:
    with recorded() as found:
        with spans.begin("call", Kind.SERVER, context(7, sampled=False)) as span:
            assert not span.is_recorded
            assert spans.within("part").is_recorded is False
        assert span.trace is not None
        assert (span.trace.trace_id, span.trace.is_sampled) == (context(7).trace_id, False)
    assert found.names() == []


def test_a_sampler_of_the_operator_decides() -> None:
    with recorded(ALWAYS_ON) as found:
        spans.begin("call", Kind.SERVER, context(7, sampled=False)).end()
    assert found.names() == ["call"]


def test_a_span_links_to_others() -> None:
    with recorded() as found:
        spans.begin("commit", Kind.INTERNAL, context(1), links=[context(1), context(2)]).end()
    links = [f"{link.context.trace_id:032x}" for link in found.named("commit")[0].links]
    assert links == [context(1).trace_id, context(2).trace_id]


def test_a_failed_span_has_the_kind_of_its_error_and_no_message() -> None:
    with recorded() as found, pytest.raises(ValueError, match="secret"), spans.begin("call", Kind.SERVER, context(1)):
        raise ValueError("secret")
    span = found.named("call")[0]
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert (span.status.description, list(span.events)) == (None, [])


def test_the_trace_before_is_the_current_one_again_after_a_block() -> None:
    token = current.begin(context(3))
    try:
        with recorded(), spans.begin("call", Kind.SERVER, context(4)):
            assert current_trace_id() == context(4).trace_id
        assert current_trace_id() == context(3).trace_id
    finally:
        current.end(token)
