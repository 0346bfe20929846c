"""The native decoder and Python read the same: the same events, rejections and malformed messages."""

import operator
import random
import shutil
import sysconfig
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from runtime.configuration import Configuration
from server.alerts.usage_requests import HAS_NATIVE_DECODER, EncodedRequest, decode, decodes_natively
from server.services import decoders
from tests.support.usage import encoding
from tests.support.usage.decoding import (
    assert_read_alike,
    by_the_decoder_alone,
    compiled,
    in_python,
    natively,
    read_natively,
)
from tests.support.usage.encoding import (
    BAD_AMOUNTS,
    BAD_CURRENCIES,
    BAD_IDS,
    BAD_VALUES,
    CLOCKS,
    LONG_RETENTION,
    NOON,
    RETENTION,
    VALID_AMOUNTS,
    VALID_CURRENCIES,
    VALID_IDS,
    VALID_VALUES,
    field,
    mutated,
    request_of,
    valid_event,
    with_field,
)
from tests.support.usage.wire import Wire

if HAS_NATIVE_DECODER:
    from server.alerts import native_decoder

MUTATIONS = 4_000  # of requests, each with one to four changes
ENCODINGS = 1_500  # requests that are drawn field by field


def test_decoder_is_compiled_where_a_compiler_is() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    assert HAS_NATIVE_DECODER or shutil.which(compiler) is None or not header.exists()


@compiled
def test_setting_decides_whether_requests_are_decoded_natively() -> None:
    methods = {f"/tidemark.v1.AlertService/{name}" for name in ("EvaluateUsage", "EvaluateUsageBatch")}
    assert set(decoders(Configuration())) == methods
    assert decodes_natively(Configuration())
    assert not decodes_natively(Configuration(native=False))
    assert set(decoders(Configuration(native=False))) == methods  # for the events of large requests


@compiled
@given(st.data())
@settings(max_examples=400)
def test_random_requests_are_read_alike_by_both(data: st.DataObject) -> None:
    now = data.draw(st.sampled_from(CLOCKS))
    retention = data.draw(st.sampled_from([RETENTION, RETENTION, LONG_RETENTION]))
    message = data.draw(encoding.requests(now)).SerializeToString()
    assert_read_alike(message, now, retention)
    if message and data.draw(st.booleans()):
        position, byte = data.draw(st.integers(0, len(message) - 1)), data.draw(st.binary(max_size=2))
        assert_read_alike(message[:position] + byte + message[position + 1 :], now, retention)


@compiled
def test_mutated_requests_are_read_alike_by_both() -> None:
    events = [
        *map(valid_event, range(3)),
        with_field("event_name", "call"),
        with_field("reservation_id", "r-1"),
        with_field("quantity", "12345678901234567890.5"),
        with_field("customer_id", "ü" * 60),
        *(with_field("value", value) for value in ("", "ü", "\u2028")),
    ]
    encoded = [event.SerializeToString() for event in events]
    draw = random.Random(13)
    results = [assert_read_alike(mutated(draw.sample(encoded, 3), draw)) for _ in range(MUTATIONS)]
    malformed = results.count("malformed")
    valid = sum(result != "malformed" and not result[2] for result in results)
    assert min(malformed, valid, MUTATIONS - malformed - valid) > MUTATIONS // 20, (malformed, valid)


@compiled
@pytest.mark.parametrize("oddness", [0.0, 0.005, 0.03])
def test_requests_in_drawn_encodings_are_read_alike_by_both(oddness: float) -> None:
    wire = Wire(random.Random(17), oddness)
    messages = [wire.request() for _ in range(ENCODINGS)]
    results = [assert_read_alike(message) for message in messages]
    valid = [result != "malformed" and result[0][3] > 0 and not result[2] for result in results]
    natively_read = [
        result != "malformed" and read_natively(message) is not None
        for message, result in zip(messages, results, strict=True)
    ]
    # What the decoder reads is valid; where nothing is odd, it reads all.
    assert all(map(operator.le, natively_read, valid))
    kinds = (sum(natively_read), ENCODINGS - sum(valid) - results.count("malformed"), results.count("malformed"))
    assert kinds == (ENCODINGS, 0, 0) if oddness == 0 else min(kinds) > ENCODINGS // 50, kinds


ID_FIELDS = ["event_id", "customer_id", "subscription_id", "metric_id", "event_name", "reservation_id", "key"]


@compiled
@pytest.mark.parametrize("name", ID_FIELDS)
def test_ids_at_their_limits_are_read_natively_and_bad_ones_are_left_to_python(name: str) -> None:
    for value in VALID_IDS:
        assert read_natively(request_of(with_field(name, value))), value
        assert assert_read_alike(request_of(with_field(name, value)))[2] == []
    for value in BAD_IDS:
        if value or name not in ("subscription_id", "metric_id", "event_name", "reservation_id"):
            assert read_natively(request_of(with_field(name, value))) is None, value
        assert_read_alike(request_of(with_field(name, value), valid_event(2)))


@compiled
@pytest.mark.parametrize("name", ["quantity", "cost"])
def test_amounts_at_their_limits_are_read_natively_and_bad_ones_are_left_to_python(name: str) -> None:
    for value in VALID_AMOUNTS:
        events = read_natively(request_of(with_field(name, value)))
        assert events is not None, value
        assert getattr(events[0], name).as_tuple() == Decimal(value).as_tuple()
        assert_read_alike(request_of(with_field(name, value)))
    for value in BAD_AMOUNTS:
        if value:
            assert read_natively(request_of(with_field(name, value))) is None, value
        assert_read_alike(request_of(with_field(name, value), valid_event(2)))


@compiled
def test_currencies_and_values_at_their_limits_are_read_natively_and_bad_ones_are_left_to_python() -> None:
    for name, valid, bad in (
        ("currency", VALID_CURRENCIES, BAD_CURRENCIES),
        ("value", VALID_VALUES, BAD_VALUES),
    ):
        for value in valid:
            assert read_natively(request_of(with_field(name, value))), value
            assert_read_alike(request_of(with_field(name, value)))
        for value in bad:
            assert read_natively(request_of(with_field(name, value))) is None, value
            assert_read_alike(request_of(with_field(name, value), valid_event(2)))


@compiled
def test_properties_up_to_their_number_are_read_natively_and_more_are_left_to_python() -> None:
    event = valid_event(1)
    event.properties.update({f"key-{number}": "v" for number in range(62)})
    assert len(event.properties) == 64
    assert read_natively(request_of(event)) is not None
    event.properties["one more"] = "v"
    assert read_natively(request_of(event)) is None
    assert len(assert_read_alike(request_of(event))[2]) == 1


@compiled
@pytest.mark.parametrize("now", CLOCKS)
def test_times_at_their_limits_are_read_alike_by_both(now: datetime) -> None:
    for time, valid in (
        (now, True),
        (now - RETENTION, False),
        (now - RETENTION + timedelta(microseconds=1), True),
        (now + timedelta(minutes=5), True),
        (now + timedelta(minutes=5, microseconds=1), False),
    ):
        for nanos in (0, 1, 999):
            event = valid_event(1, time)
            event.event_time.nanos += nanos
            events = read_natively(request_of(event), now)
            assert events is None or events[0].event_time == time
            assert (events is not None) == valid
            assert_read_alike(request_of(event), now)


@compiled
def test_every_day_of_four_centuries_is_read_as_its_date() -> None:
    """A leap day, and its absence in 2100, shifts all dates after it."""
    first = datetime(1970, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    days = [first + timedelta(days=day) for day in range(146_097 + 366)]
    for start in range(0, len(days), 5_000):
        message = request_of(*map(dated, days[start : start + 5_000]))
        found = native_decoder.scan(message)
        assert found is not None
        events, _ = native_decoder.read(message, found[3], 5_000, 0, 2**60) or ([], 0)
        assert [event.event_time for event in events] == days[start : start + 5_000]


def dated(time: datetime) -> usage_pb2.UsageEvent:
    """A small event of that time."""
    event = usage_pb2.UsageEvent(event_id="e", customer_id="c", metric_id="m", quantity="1")
    event.event_time.FromDatetime(time)
    return event


@compiled
def test_every_beginning_of_a_request_is_read_alike_by_both() -> None:
    message = request_of(*map(valid_event, range(3)), batch_id="b", include_gauges=True)
    for end in range(len(message)):
        assert_read_alike(message[:end])
        assert_read_alike(field(0x0A, message[3:end]))


@compiled
@pytest.mark.parametrize("count", [1, 499, 500, 501, 1_000, 5_000])
async def test_large_requests_are_read_natively_in_parts(count: int) -> None:
    message = request_of(*map(valid_event, range(count)), batch_id="b")
    events = await by_the_decoder_alone(message, NOON)
    assert events is not None
    assert [event.event_id for event in events] == [f"e{number}" for number in range(count)]
    assert await natively(message, NOON) == await in_python(message, NOON)


@compiled
async def test_large_request_with_one_bad_event_is_left_to_python() -> None:
    events = [valid_event(number) for number in range(2_000)]
    events[1_700].quantity = "many"
    message = request_of(*events)
    assert await by_the_decoder_alone(message, NOON) is None
    found = await natively(message, NOON)
    assert [index for index, _, _ in found[2]] == [1_700]
    assert found == await in_python(message, NOON)


@compiled
def test_texts_that_come_again_and_again_keep_their_values() -> None:
    """More of them than the decoder has places for, so that they displace each other."""
    events = []
    for number in range(20_000):
        event = usage_pb2.UsageEvent(
            event_id=str(number),
            customer_id=f"c{number * 7919 % 9973}",
            metric_id=f"m{number % 3}",
            quantity=str(number),
        )
        event.event_time.FromDatetime(NOON)
        events.append(event)
    for start in range(0, len(events), 400):
        part = events[start : start + 400]
        read = read_natively(request_of(*part))
        assert read is not None
        assert [(one.event_id, one.customer_id, one.metric_id, str(one.quantity)) for one in read] == [
            (one.event_id, one.customer_id, one.metric_id, one.quantity) for one in part
        ]


@compiled
def test_decoder_reads_from_any_place_of_a_message_without_harm() -> None:
    message = request_of(*map(valid_event, range(5)))
    for start in range(len(message) + 1):
        native_decoder.read(message, start, 10, 0, 2**60)
    for start in (-1, len(message) + 1):
        with pytest.raises(ValueError, match="outside"):
            native_decoder.read(message, start, 1, 0, 2**60)


@compiled
def test_plain_request_is_kept_encoded_and_a_malformed_one_is_refused() -> None:
    kind = alert_service_pb2.EvaluateUsageBatchRequest
    assert isinstance(decode(kind, request_of(valid_event(1)), native=True, most=10), EncodedRequest)
    assert isinstance(decode(kind, b"", native=True, most=10), kind)
    with pytest.raises(DecodeError):
        decode(kind, b"\x0a\x05", native=True, most=10)


async def test_event_without_a_time_is_rejected_whatever_the_retention() -> None:
    event = valid_event(1)
    event.ClearField("event_time")
    [rejected] = (await in_python(request_of(event, valid_event(2)), NOON, LONG_RETENTION))[2]
    assert rejected[:2] == (0, "e1")
