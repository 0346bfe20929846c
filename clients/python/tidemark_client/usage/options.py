"""How a usage writer works: sizes, times, bounds, and the functions that it calls."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from tidemark_client.errors.exceptions import TidemarkError
from tidemark_client.usage.batches import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from tidemark_client.v1.transition_pb2 import Transition
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

logger = logging.getLogger("tidemark_client.usage")


def _log_rejection(event: UsageEvent, error: TidemarkError) -> None:
    logger.error("usage event %s of %s was rejected: %s", event.event_id, event.customer_id, error)


def _log_interruption(sentence: str) -> None:
    logger.warning("usage is not acknowledged now, and will be sent again: %s", sentence)


@dataclass(frozen=True)
class Spill:
    """Usage that waits in files while no server takes it. A writer with the same folder sends it after a restart.

    folder: for one writer at a time. max_bytes: of all its files; when they are full, usage stays in memory.
    """

    folder: str | os.PathLike[str]
    max_bytes: int = 1024 * 1024 * 1024


@dataclass(frozen=True)
class WriterOptions:
    """How a usage writer works.

    max_batch_events, max_batch_bytes: of one message. linger: seconds that an event waits for others of its message;
    it waits longer while earlier messages of its stream wait, and up to twice as long in the writer for threads.
    max_pending_events, max_pending_bytes: of events in memory that are not acknowledged; beyond, the writer makes its
    caller wait. streams: over which usage is sent; all events of one customer go over the same. in_flight: messages
    of one stream that are sent and not yet answered. patience: seconds without an answer, after which the writer
    fails; unset: it never gives up. close_timeout: seconds that closing waits for acknowledgements. include_gauges,
    max_answer_bytes: as in UsageBatch. spill: unset: usage waits in memory only.

    on_crossing: called with each threshold that was reached or resolved. on_outcome: with the answer to each message.
    on_rejected: with each event that the server does not count, and why, unless the event has a future; unset: it is
    logged. on_interruption: with a sentence whenever a stream broke; unset: it is logged. These functions must be
    short: the writer waits for them. An error in one is logged.
    """

    max_batch_events: int = 500
    max_batch_bytes: int = MAX_BATCH_BYTES // 4
    linger: float = 0.01
    max_pending_events: int = 100_000
    max_pending_bytes: int = 64 * 1024 * 1024
    streams: int = 4
    in_flight: int = 8
    patience: float = math.inf
    close_timeout: float = 30.0
    include_gauges: bool = False
    max_answer_bytes: int = 16 * 1024 * 1024
    spill: Spill | None = None
    on_crossing: Callable[[Transition], None] | None = None
    on_outcome: Callable[[UsageOutcome], None] | None = None
    on_rejected: Callable[[UsageEvent, TidemarkError], None] = field(default=_log_rejection)
    on_interruption: Callable[[str], None] = field(default=_log_interruption)

    def __post_init__(self) -> None:
        for name, value, most in (
            ("max_batch_events", self.max_batch_events, MAX_BATCH_EVENTS),
            ("max_batch_bytes", self.max_batch_bytes, MAX_BATCH_BYTES),
            ("max_pending_events", self.max_pending_events, math.inf),
            ("max_pending_bytes", self.max_pending_bytes, math.inf),
            ("in_flight", self.in_flight, 64),
            ("streams", self.streams, 64),
        ):
            if not 1 <= value <= most:
                raise ValueError(
                    f"{name} is {value}: it is at least 1" + ("" if most == math.inf else f", at most {most}")
                )
        if self.linger < 0 or self.patience < 0 or self.close_timeout < 0:
            raise ValueError("linger, patience and close_timeout are seconds, 0 or more")


@dataclass(slots=True)
class WriterCounts:
    """What a writer has done. acknowledged: counted by the server now or before; duplicates are among them.

    pending: taken, and neither acknowledged nor rejected. resent: sent again after interruptions. spilled: those of
    the pending events that are in files only.
    """

    acknowledged: int = 0
    duplicates: int = 0
    rejected: int = 0
    pending: int = 0
    resent: int = 0
    spilled: int = 0
