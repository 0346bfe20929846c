"""What a writer holds: the message that is being filled, and those that wait for their acknowledgement."""

from __future__ import annotations

import itertools
from asyncio import Future
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidemark_client.usage.spill import Record
from tidemark_client.v1.usage_pb2 import UsageOutcome

EVENT_OVERHEAD = 64  # bytes that Python needs for an event beside its content

_NUMBERS = itertools.count(1)


@dataclass(slots=True)
class Pending:
    """One message.

    events: its encoded events; None while they are in a file only. futures: of events, by their index. size: bytes in
    memory. tries: how often the server failed to record them. epoch: between which waits it was taken; see Ledger.
    record: where it stands in the spill. is_sent: the stream has taken it. is_done: it is acknowledged.
    """

    events: list[bytes] | None = field(default_factory=list)
    futures: dict[int, Future[UsageOutcome]] = field(default_factory=dict)
    count: int = 0
    size: int = 0
    tries: int = 0
    epoch: int = 0
    record: Record | None = None
    is_sent: bool = False
    is_done: bool = False
    batch_id: str = field(default_factory=lambda: f"w{next(_NUMBERS)}")

    def add(self, content: bytes, future: Future[UsageOutcome] | None) -> None:
        """Adds an encoded event."""
        assert self.events is not None
        if future is not None:
            self.futures[self.count] = future
        self.events.append(content)
        self.count += 1
        self.size += len(content) + EVENT_OVERHEAD

    def extend(self, contents: Sequence[bytes], size: int) -> None:
        """Adds encoded events without futures. size: of all, in memory."""
        assert self.events is not None
        self.events += contents
        self.count += len(contents)
        self.size += size


def memory(contents: Sequence[bytes]) -> int:
    """Bytes that encoded events need."""
    return sum(map(len, contents)) + len(contents) * EVENT_OVERHEAD
