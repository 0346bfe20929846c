"""Batches of usage events, and their form on the wire.

An event is encoded once, when it is added. A request is put together of encoded events: encoding whole messages would
copy each event twice more, and encode it again for every repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tidemark_client.v1.usage_pb2 import UsageEvent

MAX_BATCH_EVENTS = 5_000  # of one message, as the contract says
MAX_BATCH_BYTES = 2 * 1024 * 1024  # of one message; a server accepts 4 MiB by default

# Tags of fields: number and kind of the fields of EvaluateUsageRequest, EvaluateUsageBatchRequest and UsageBatch.
_BATCH = b"\x0a"  # 1, with a length
_BATCH_ID = b"\x0a"  # 1, with a length
_EVENT = b"\x12"  # 2, with a length
_INCLUDE_GAUGES = b"\x18\x01"  # 3, true
_MAX_ANSWER_BYTES = b"\x20"  # 4, a number


class AnyBatch(Protocol):
    """The events of one message, as messages or encoded."""

    @property
    def batch_id(self) -> str:
        """Comes back in the outcome."""

    @property
    def events(self) -> Sequence[UsageEvent | bytes]:
        """In the order in which they are evaluated."""


@dataclass(frozen=True)
class Batch:
    """The events of one message. lines: the line of each event that comes from a file."""

    batch_id: str
    events: Sequence[UsageEvent]
    lines: Sequence[int] = ()


@dataclass(frozen=True)
class EncodedBatch:
    """The same with events that are encoded already."""

    batch_id: str
    events: Sequence[bytes]


@dataclass(frozen=True)
class AnswerOptions:
    """What answers contain. include_gauges: the values of the gauges. max_bytes: of an answer; 0: 2 MiB."""

    include_gauges: bool = False
    max_bytes: int = 0


def request(batch_id: str, events: Sequence[UsageEvent | bytes], options: AnswerOptions) -> bytes:
    """An EvaluateUsageRequest, or an EvaluateUsageBatchRequest, which has the same form."""
    name = batch_id.encode()
    parts = [_BATCH_ID, varint(len(name)), name] if name else []
    encoded = [event if isinstance(event, bytes) else event.SerializeToString() for event in events]
    parts += [
        _HEADERS[len(event)] + event if len(event) < _COMMON else _EVENT + varint(len(event)) + event
        for event in encoded
    ]
    if options.include_gauges:
        parts.append(_INCLUDE_GAUGES)
    if options.max_bytes:
        parts += (_MAX_ANSWER_BYTES, varint(options.max_bytes))
    batch = b"".join(parts)
    return b"".join((_BATCH, varint(len(batch)), batch))


def varint(number: int) -> bytes:
    """A number of protobuf, 0 or more: seven bits in each byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


# What stands before an event of a common size: to make it for each event would take most of the time of `request`.
_COMMON = 1_024
_HEADERS = [_EVENT + varint(size) for size in range(_COMMON)]
