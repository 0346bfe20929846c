"""The W3C trace context: which trace a piece of work belongs to. It is read, checked and written here.

https://www.w3.org/TR/trace-context/ defines the two headers, `traceparent` and `tracestate`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

TRACEPARENT = "traceparent"  # in lower case: the name in gRPC's metadata, and of the webhook's header
TRACESTATE = "tracestate"

_SAMPLED = 0x01
_RANDOM = 0x02  # the trace id is random; defined by level 2 of the specification
_FORWARDED_FLAGS = _SAMPLED | _RANDOM  # the others must be sent as zero until a specification defines them

_MAX_STATE_LENGTH = 512  # characters, which every participant has to forward
_MAX_STATE_MEMBERS = 32

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"[a-z0-9][a-z0-9_\-*/]{0,240}(?:@[a-z][a-z0-9_\-*/]{0,13})?"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"{_KEY}={_VALUE}")

_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace. state: what systems of tracing add for themselves, forwarded unchanged; empty for none."""

    trace_id: str  # 32 hexadecimal digits
    span_id: str  # 16 hexadecimal digits
    flags: int = 0
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records the trace. Spans of other traces are not recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The value of the header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def stored(self) -> str:
        """Both values as one text, as the database stores it; `of_stored` reads it."""
        return f"{self.traceparent} {self.state}" if self.state else self.traceparent

    def headers(self) -> dict[str, str]:
        """The headers that send the context on."""
        headers = {TRACEPARENT: self.traceparent}
        if self.state:
            headers[TRACESTATE] = self.state
        return headers


def of_texts(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The context of two header values; None if the first is malformed. A malformed second one is left out."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & _FORWARDED_FLAGS, _valid_state(tracestate))


def of_stored(text: str) -> TraceContext | None:
    """The context of a text that `TraceContext.stored` made; None for any other text."""
    traceparent, _, state = text.partition(" ")
    return of_texts(traceparent, state)


def of_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The context in the metadata of a call; None without exactly one well-formed `traceparent`."""
    parent: str | None = None
    states: list[str] = []
    for key, value in metadata:
        if key == TRACEPARENT:
            if parent is not None or not isinstance(value, str):
                return None
            parent = value
        elif key == TRACESTATE and isinstance(value, str):
            states.append(value)
    return None if parent is None else of_texts(parent, ",".join(states))


def _valid_state(state: str) -> str:
    members = [member for part in state.split(",") if (member := part.strip(" \t"))]
    joined = ",".join(members)
    if len(members) > _MAX_STATE_MEMBERS or len(joined) > _MAX_STATE_LENGTH:
        return ""
    keys = {member.partition("=")[0] for member in members}
    if len(keys) != len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return joined
