"""The W3C trace context: what is read, what is ignored, and what is sent on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.tracing.context import TraceContext, of_metadata, of_stored, of_texts

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_a_traceparent_is_read_and_written() -> None:
    trace = of_texts(PARENT)
    assert trace == TraceContext(TRACE_ID, SPAN_ID, 1)
    assert trace.is_sampled
    assert trace.traceparent == PARENT
    assert trace.headers() == {"traceparent": PARENT}


@pytest.mark.parametrize(
    ("flags", "forwarded"),
    [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fc", "00")],
)
def test_unknown_flags_are_written_as_zero(flags: str, forwarded: str) -> None:
    trace = of_texts(f"00-{TRACE_ID}-{SPAN_ID}-{flags}")
    assert trace is not None
    assert trace.traceparent == f"00-{TRACE_ID}-{SPAN_ID}-{forwarded}"
    assert trace.is_sampled == (forwarded in ("01", "03"))


@pytest.mark.parametrize("text", [f"01-{TRACE_ID}-{SPAN_ID}-01", f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes-later"])
def test_a_traceparent_of_a_later_version_is_read_as_version_zero(text: str) -> None:
    trace = of_texts(text)
    assert trace is not None
    assert trace.traceparent == PARENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n",
        f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
        f"00-{TRACE_ID}-{SPAN_ID}-\u0661\u0661",
    ],
)
def test_a_malformed_traceparent_is_ignored(text: str) -> None:
    assert of_texts(text) is None
    assert of_metadata([("traceparent", text)]) is None


@pytest.mark.parametrize(
    ("state", "read"),
    [
        ("", ""),
        ("vendor=value", "vendor=value"),
        ("a=1 , b@c=2,,", "a=1,b@c=2"),
        ("a=with space", "a=with space"),
        ("a=1,a=2", ""),
        ("a", ""),
        ("A=1", ""),
        ("a=", ""),
        ("a=b=c", ""),
        ("a=\u00e9", ""),
        ("a=1\r\nx: y", ""),
        (",".join(f"k{n}=1" for n in range(33)), ""),
        ("a=" + "x" * 256 + ",b=" + "x" * 254, ""),
        ("a=" + "x" * 257, ""),
    ],
)
def test_a_tracestate_is_forwarded_if_it_is_well_formed(state: str, read: str) -> None:
    trace = of_texts(PARENT, state)
    assert trace is not None
    assert trace.state == read
    assert trace.headers() == ({"traceparent": PARENT, "tracestate": read} if read else {"traceparent": PARENT})


def test_metadata_with_several_tracestates_joins_them() -> None:
    trace = of_metadata([("tracestate", "a=1"), ("traceparent", PARENT), ("x", "y"), ("tracestate", "b=2")])
    assert trace is not None
    assert trace.state == "a=1,b=2"


def test_metadata_with_two_traceparents_has_no_trace() -> None:
    assert of_metadata([("traceparent", PARENT), ("traceparent", PARENT)]) is None
    assert of_metadata([("traceparent", PARENT.encode())]) is None
    assert of_metadata([]) is None


@given(
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    flags=st.integers(0, 3),
    state=st.sampled_from(["", "a=1", "vendor@sys=x y z,b=2"]),
)
def test_a_stored_context_is_read_again(trace_id: int, span_id: int, flags: int, state: str) -> None:
    trace = TraceContext(f"{trace_id:032x}", f"{span_id:016x}", flags, state)
    assert of_stored(trace.stored) == trace


@given(st.text(), st.text())
def test_any_text_is_read_without_an_error(traceparent: str, tracestate: str) -> None:
    assert of_texts(traceparent, tracestate) is None
    assert of_stored(traceparent) is None
    trace = of_texts(PARENT, tracestate)
    assert trace is not None
    assert of_stored(trace.stored) == trace
