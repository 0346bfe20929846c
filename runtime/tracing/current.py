"""The trace of the running code. It needs no extra: the context of a call is known also where no span is recorded."""

from contextvars import ContextVar, Token

from runtime.tracing.context import TraceContext

_current: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


def begin(trace: TraceContext | None) -> Token[TraceContext | None]:
    """Makes `trace` the current one for the rest of this task, and for the tasks that it creates."""
    return _current.set(trace)


def end(token: Token[TraceContext | None]) -> None:
    """Makes the trace before `begin` the current one again."""
    _current.reset(token)


def current_trace() -> TraceContext | None:
    """The trace of the current call or delivery; None without one."""
    return _current.get()


def current_trace_id() -> str | None:
    """The id of the current trace, 32 hexadecimal digits; None without one."""
    trace = _current.get()
    return None if trace is None else trace.trace_id
