"""Trace contexts as callers send them."""

from runtime.tracing.context import TraceContext


def context(number: int, *, sampled: bool = True, state: str = "") -> TraceContext:
    """The context of a caller; no two numbers have a trace in common."""
    return TraceContext(f"{number:032x}", f"{number:016x}", int(sampled), state)


def metadata(trace: TraceContext) -> tuple[tuple[str, str], ...]:
    """The metadata of a call in a trace."""
    return tuple(trace.headers().items())
