"""Large requests whose events are decoded in parts: they mean the same as when protobuf decodes them as a whole."""

import random

import pytest
from google.protobuf.message import DecodeError

from generated.tidemark.v1 import alert_service_pb2, error_reason_pb2, usage_pb2
from server.alerts.split_events import MAX_EVENT_FIELDS, PART_BYTES, PART_EVENTS, SplitEvents, split
from server.calls.errors import InvalidArgument
from tests.support.usage.encoding import numbered_field as field

EVENT, PROPERTY = 2, 9  # field numbers: of a batch, and of an event
MUTATIONS = 2_000


def request(events: list[usage_pb2.UsageEvent], **batch: int | str) -> bytes:
    """An encoded request."""
    message = alert_service_pb2.EvaluateUsageRequest()
    message.batch.CopyFrom(usage_pb2.UsageBatch(events=events, **batch))  # type: ignore[arg-type]
    return message.SerializeToString()


def event(number: int, properties: int = 0) -> usage_pb2.UsageEvent:
    """An event with so many properties."""
    return usage_pb2.UsageEvent(
        event_id=f"e-{number}", customer_id="acme", properties={f"p{key}": "v" for key in range(properties)}
    )


def decoded(events: SplitEvents) -> list[usage_pb2.UsageEvent]:
    """All events; each part begins where the one before ends, and is small."""
    found: list[usage_pb2.UsageEvent] = []
    for part in events.parts():
        assert part.first == len(found)
        assert len(part.events) <= PART_EVENTS
        assert len(part.events) == 1 or sum(each.ByteSize() for each in part.events) <= PART_BYTES
        found += part.events
    return found


def test_parts_have_all_events_in_their_order() -> None:
    events = [event(number, number % 80) for number in range(700)]
    batch, parts = split(request(events, batch_id="b", max_answer_bytes=7), 700)
    assert (batch.batch_id, batch.max_answer_bytes, len(batch.events)) == ("b", 7, 0)
    assert len(parts) == 700
    assert decoded(parts) == events


def test_a_batch_in_several_parts_is_joined_as_protobuf_joins_it() -> None:
    message = request([event(1)], batch_id="a") + request([event(2)], batch_id="b") + b"\x98\xf6\x01\x01"
    whole = alert_service_pb2.EvaluateUsageRequest.FromString(message).batch
    batch, parts = split(message, 10)
    assert batch.batch_id == whole.batch_id == "b"
    assert decoded(parts) == list(whole.events)


def test_an_event_with_very_many_fields_is_not_decoded_beside_its_id() -> None:
    large = event(2)
    message = field(
        1,
        field(EVENT, event(1).SerializeToString())
        + field(EVENT, field(PROPERTY, b"") * MAX_EVENT_FIELDS + large.SerializeToString()[:5])
        + field(EVENT, event(3).SerializeToString() + field(PROPERTY, b"") * (MAX_EVENT_FIELDS - 2)),
    )
    _, events = split(message, 10)
    first, second, third = events.parts()
    assert [one.too_many for one in (first, second, third)] == [False, True, False]
    assert second.events[0].event_id in ("", "e-2")
    assert third.events[0].event_id == "e-3"


def test_more_events_than_a_batch_may_have_are_refused_without_decoding_them() -> None:
    with pytest.raises(InvalidArgument) as refused:
        split(field(1, field(EVENT, b"") * 100_000), 5_000)
    assert refused.value.reason == error_reason_pb2.ERROR_REASON_BATCH_TOO_LARGE
    assert refused.value.metadata == {"events": "5001", "limit": "5000"}


@pytest.mark.parametrize(
    "message", [b"\x0a\x05a", field(1, b"\x12\x7f"), field(1, b"\x1b\x1c"), field(1, b"\x98\xf6\x01\x01" * 2_000)]
)
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(DecodeError):
        split(message, 10)


def test_a_bad_event_makes_the_request_malformed() -> None:
    _, events = split(field(1, field(EVENT, b"\x0a\x01\xff")), 10)  # the id is no UTF-8
    with pytest.raises(InvalidArgument) as refused:
        list(events.parts())
    assert refused.value.reason == error_reason_pb2.ERROR_REASON_MALFORMED_MESSAGE


def test_mutated_requests_mean_the_same_as_for_protobuf() -> None:
    draw = random.Random(16)
    same = 0
    for _ in range(MUTATIONS):
        data = bytearray(request([event(number, draw.randint(0, 3)) for number in range(draw.randint(1, 5))]))
        for _ in range(draw.randint(0, 2)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        message = bytes(data)
        try:
            whole = alert_service_pb2.EvaluateUsageRequest.FromString(message).batch
        except DecodeError:
            whole = None
        try:
            _, parts = split(message, 100)
            events = decoded(parts)
        except (DecodeError, InvalidArgument):
            # Groups, which no request has, are refused here as well.
            assert whole is None or b"\x1b" in message or any(byte & 7 in (3, 4) for byte in message)
            continue
        assert whole is not None, message
        assert events == list(whole.events)
        same += 1
    assert same > MUTATIONS // 3
