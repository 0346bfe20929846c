"""Usage requests: messages of protobuf, or requests whose events are still encoded, for the native decoder.

The native decoder (`native_decoder.pyx`) exists where a compiler was present when the package was installed. It reads
*plain* requests. Every other one is decoded by protobuf and checked in Python; the events of a large one a few at a
time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, TypeVar

from evaluator.events import UsageEvent
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import usage_pb2
from runtime.compiled import problem_of, problem_of_import
from runtime.configuration import Configuration
from runtime.turns import Slices
from server.alerts.split_events import SplitEvents, split

try:
    from server.alerts import native_decoder
except ImportError as error:
    HAS_NATIVE_DECODER, DECODER_PROBLEM = False, problem_of_import(error, __package__)
else:
    DECODER_PROBLEM = problem_of(native_decoder)
    HAS_NATIVE_DECODER = DECODER_PROBLEM is None

# Events that are read without a pause. They take about as long as those that Python reads at once.
AT_ONCE = 500
DECODED_AT_ONCE = 16_384  # bytes of a request that protobuf decodes in one piece

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class EncodedEvents:
    """The events of a plain request. They may still be invalid.

    message: the request. start: where its batch begins there. count: of its events.
    """

    message: bytes
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    async def read(self, earliest: datetime, latest: datetime, slices: Slices) -> list[UsageEvent] | None:
        """The events, if all of them are valid, later than `earliest` and not later than `latest`; otherwise None."""
        after, until = (earliest - _EPOCH) // _MICROSECOND, (latest - _EPOCH) // _MICROSECOND
        if self.count > AT_ONCE:
            await slices.begin()
        events: list[UsageEvent] = []
        position = self.start
        while True:
            part = native_decoder.read(self.message, position, AT_ONCE, after, until)
            if part is None:
                return None
            events += part[0]
            if len(events) == self.count:
                return events
            position = part[1]
            await slices.pause()

    def for_protobuf(self) -> SplitEvents | Sequence[usage_pb2.UsageEvent]:
        """The events as messages, or to be decoded by protobuf."""
        if len(self.message) > DECODED_AT_ONCE:
            return split(self.message, self.count)[1]
        # The requests of both methods have the same encoding.
        return messages.EvaluateUsageRequest.FromString(self.message).batch.events


@dataclass(slots=True)
class EncodedBatch:
    """The batch of a plain request, or of a large one."""

    batch_id: str
    include_gauges: bool
    max_answer_bytes: int
    events: EncodedEvents | SplitEvents


@dataclass(slots=True)
class EncodedRequest:
    """A plain request, or a large one."""

    batch: EncodedBatch


UsageBatch: TypeAlias = usage_pb2.UsageBatch | EncodedBatch
Request = TypeVar("Request", messages.EvaluateUsageRequest, messages.EvaluateUsageBatchRequest)


def decodes_natively(configuration: Configuration) -> bool:
    """Whether requests are decoded by the native decoder: it is compiled, and not switched off."""
    return configuration.native and HAS_NATIVE_DECODER


def decode(kind: type[Request], message: bytes, *, native: bool, most: int) -> Request | EncodedRequest:
    """The request. The events of a plain one, and of a large one, are still encoded. native: with the native decoder.

    most: events that a batch may have. Raises DecodeError, and InvalidArgument for a large batch with more events.
    """
    if native and (found := native_decoder.scan(message)) is not None:
        batch_id, include_gauges, max_answer_bytes, start, count = found
        encoded = EncodedEvents(message, start, count)
        return EncodedRequest(EncodedBatch(batch_id, include_gauges, max_answer_bytes, encoded))
    if len(message) <= DECODED_AT_ONCE:
        return kind.FromString(message)
    batch, events = split(message, most)
    return EncodedRequest(EncodedBatch(batch.batch_id, batch.include_gauges, batch.max_answer_bytes, events))
