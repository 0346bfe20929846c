"""Spans as the product begins and ends them. While tracing is off they record nothing, and cost a function call.

The core does not depend on OpenTelemetry: `runtime.trace_export` puts a recorder in place where the extra is
installed and configured.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from runtime.tracing.context import TraceContext
from runtime.tracing.current import current_trace

Value = str | int | float | bool  # of an attribute


class Kind(Enum):
    """What a span is to the spans of other processes."""

    SERVER = "server"  # it answers a caller
    CLIENT = "client"  # it waits for the answer of a server
    INTERNAL = "internal"


class Span:
    """A piece of work of a trace. This one records nothing; `runtime.tracing.recorder` has the other kind.

    trace: the context that what the work causes belongs to; None where tracing is off. As a context manager it makes
    that context the current one, and ends with the exception of its block.
    """

    __slots__ = ()

    @property
    def trace(self) -> TraceContext | None:
        """The context of this span."""
        return None

    @property
    def is_recorded(self) -> bool:
        """Whether anything that is noted is kept."""
        return False

    def note(self, name: str, value: Value) -> None:
        """Adds an attribute."""

    def fail(self, kind: str) -> None:
        """Notes that the work failed, and the kind of its failure."""

    def event(self, name: str) -> None:
        """Adds a point in time."""

    def end(self) -> None:
        """Ends the work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class Recorder(Protocol):
    """What begins spans that are recorded."""

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span:
        """A span that has begun. Without a parent it begins a trace of its own."""


NO_SPAN = Span()
_NO_ATTRIBUTES: Mapping[str, Value] = {}
_recorder: Recorder | None = None


def use(recorder: Recorder | None) -> None:
    """Records the spans of this process from now on; None: no more."""
    global _recorder
    _recorder = recorder


def are_recorded() -> bool:
    """Whether tracing is on."""
    return _recorder is not None


def begin(
    name: str,
    kind: Kind,
    parent: TraceContext | None,
    *,
    links: Sequence[TraceContext] = (),
    attributes: Mapping[str, Value] = _NO_ATTRIBUTES,
) -> Span:
    """A span that has begun. Without a parent it begins a trace of its own."""
    if _recorder is None:
        return NO_SPAN
    return _recorder.begin(name, kind, parent, links, attributes)


def within(name: str) -> Span:
    """A part of the work of the current trace. Work that belongs to no trace is not recorded."""
    if _recorder is None or (parent := current_trace()) is None:
        return NO_SPAN
    return _recorder.begin(name, Kind.INTERNAL, parent, (), _NO_ATTRIBUTES)
