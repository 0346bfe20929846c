"""Usage requests: messages of protobuf, or requests whose events are still encoded, for the native decoder.

The native decoder (`native_decoder.pyx`) exists where a compiler was present when the package was installed. It reads
*plain* requests. Every other one is decoded by protobuf and checked in Python.
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

try:
    from server.alerts import native_decoder
except ImportError as error:
    HAS_NATIVE_DECODER, DECODER_PROBLEM = False, problem_of_import(error, __package__)
else:
    DECODER_PROBLEM = problem_of(native_decoder)
    HAS_NATIVE_DECODER = DECODER_PROBLEM is None

# Events that are read without a pause. They take about as long as those that Python reads at once.
AT_ONCE = 500

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

    def decoded(self) -> Sequence[usage_pb2.UsageEvent]:
        """The events as messages."""
        # The requests of both methods have the same encoding.
        return messages.EvaluateUsageRequest.FromString(self.message).batch.events


@dataclass(slots=True)
class EncodedBatch:
    """The batch of a plain request."""

    batch_id: str
    include_gauges: bool
    max_answer_bytes: int
    events: EncodedEvents


@dataclass(slots=True)
class EncodedRequest:
    """A plain request."""

    batch: EncodedBatch


UsageBatch: TypeAlias = usage_pb2.UsageBatch | EncodedBatch
Request = TypeVar("Request", messages.EvaluateUsageRequest, messages.EvaluateUsageBatchRequest)


def decodes_natively(configuration: Configuration) -> bool:
    """Whether requests are decoded by the native decoder: it is compiled, and not switched off."""
    return configuration.native and HAS_NATIVE_DECODER


def decode_natively(kind: type[Request], message: bytes) -> Request | EncodedRequest:
    """The request, its events still encoded if it is plain; otherwise a message of that kind. Raises DecodeError."""
    found = native_decoder.scan(message)
    if found is None:
        return kind.FromString(message)
    batch_id, include_gauges, max_answer_bytes, start, count = found
    return EncodedRequest(
        EncodedBatch(batch_id, include_gauges, max_answer_bytes, EncodedEvents(message, start, count))
    )
