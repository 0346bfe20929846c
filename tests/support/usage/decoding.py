"""What both ways of reading make of an encoded usage request: the native decoder, and Python alone."""

from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from google.protobuf.message import DecodeError

from evaluator.events import UsageEvent
from generated.tidemark.v1 import alert_service_pb2
from runtime.turns import Slices
from server.alerts.usage_reading import ParsedBatch, Reader
from server.alerts.usage_requests import HAS_NATIVE_DECODER, EncodedEvents, EncodedRequest, decode
from tests.support.usage.encoding import NOON, RETENTION

MOST = 50_000  # events of a batch

Result = TypeVar("Result")

compiled = pytest.mark.skipif(not HAS_NATIVE_DECODER, reason="the native decoder is not compiled")


def assert_read_alike(message: bytes, now: datetime = NOON, retention: timedelta = RETENTION) -> Any:
    """Compares both ways of reading; returns what they make of the message."""
    result = finished(in_python(message, now, retention))
    assert finished(natively(message, now, retention)) == result
    return result


def read_natively(message: bytes, now: datetime = NOON) -> list[UsageEvent] | None:
    """The events that the native decoder reads; None if it leaves the request to Python."""
    return finished(by_the_decoder_alone(message, now))


def finished(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: Result = ended.value
        return result
    raise AssertionError("the coroutine waits")


async def in_python(message: bytes, now: datetime, retention: timedelta = RETENTION) -> Any:
    """What protobuf and Python make of a request."""
    try:
        request = alert_service_pb2.EvaluateUsageRequest.FromString(message)
    except DecodeError:
        return "malformed"
    return _shown(request, await Reader(retention).read(request.batch.events, now, Slices(1)))


async def natively(message: bytes, now: datetime, retention: timedelta = RETENTION) -> Any:
    """What a server with the native decoder makes of a request, whichever way it reads it in the end."""
    try:
        request = decode(alert_service_pb2.EvaluateUsageRequest, message, native=True, most=MOST)
    except DecodeError:
        return "malformed"
    return _shown(request, await Reader(retention).read(request.batch.events, now, Slices(1)))


async def by_the_decoder_alone(
    message: bytes, now: datetime, retention: timedelta = RETENTION
) -> list[UsageEvent] | None:
    """The events that the native decoder reads; None if it leaves the request to Python."""
    request = decode(alert_service_pb2.EvaluateUsageRequest, message, native=True, most=MOST)
    if not isinstance(request, EncodedRequest) or not isinstance(request.batch.events, EncodedEvents):
        return None
    return await request.batch.events.read(now - retention, now + timedelta(minutes=5), Slices(1))


def _shown(request: alert_service_pb2.EvaluateUsageRequest | EncodedRequest, parsed: ParsedBatch) -> Any:
    """All that the service uses of a request, in a form in which only equal requests are equal."""
    batch = request.batch
    return (
        (batch.batch_id, batch.include_gauges, batch.max_answer_bytes, len(batch.events)),
        [_shown_event(event) for event in parsed.events],
        [(one.index, one.event_id, one.error.status().SerializeToString()) for one in parsed.rejected],
    )


def _shown_event(event: UsageEvent) -> Any:
    """Amounts with their exponents, which decimals of the same value may differ in."""
    return (
        type(event),
        [(type(value), value) for value in event[:2]],
        (event.event_time, event.event_time.tzinfo, event.event_time.fold),
        event.metric_id,
        (type(event.quantity), event.quantity.as_tuple()),
        event.subscription_id,
        None if event.cost is None else event.cost.as_tuple(),
        event.currency,
        dict(event.properties),
        event.event_name,
        event.reservation_id,
    )
