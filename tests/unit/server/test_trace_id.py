"""The trace id of a call: only of a header that is valid, and of a trace that is recorded."""

from typing import cast

import pytest

from server.calls.context import Context
from server.calls.trace_id import trace_id_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


class Call:
    """As much of gRPC's context as is read."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata


def trace_id(*metadata: tuple[str, str | bytes]) -> str | None:
    return trace_id_of(cast("Context", Call(*metadata)))


@pytest.mark.parametrize("flags", ["01", "03", "0f", "ff"])
def test_the_trace_id_of_a_recorded_trace_is_found(flags: str) -> None:
    assert trace_id(("a", "b"), ("traceparent", f"00-{TRACE}-{SPAN}-{flags}")) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        f"00-{TRACE}-{SPAN}-00",  # not recorded
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-x",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        "00-\u0661" + TRACE[1:] + f"-{SPAN}-01",
    ],
)
def test_another_header_gives_none(header: str) -> None:
    assert trace_id(("traceparent", header)) is None
    assert trace_id(("traceparent", header.encode())) is None


def test_a_call_without_the_header_has_none() -> None:
    assert trace_id() is None
