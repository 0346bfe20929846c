"""Messages from JSON and as JSON: for any message as protobuf does it, with all problems by their paths."""

import random
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.json_format import ParseError as ProtobufError
from google.protobuf.message_factory import GetMessageClass

from gateway.transcoding.problems import Problems
from gateway.transcoding.reading import MAX_ELEMENTS, MAX_ENTRIES, read_message
from gateway.transcoding.times import parse_duration, parse_timestamp, write_duration, write_timestamp
from gateway.transcoding.writing import writer_of
from generated.tidemark.v1 import alert_service_pb2, limit_service_pb2, usage_pb2
from proto.documents.contract import MESSAGES
from tests.support.gateway.random_messages import random_message

EXAMPLES = 25  # random messages of each type


def every_kind() -> Descriptor:
    """A message with a field of each kind that a contract could have one day."""
    file = descriptor_pb2.FileDescriptorProto(name="test/kinds.proto", package="test.kinds", syntax="proto3")
    message = file.message_type.add(name="Kinds")
    kinds = descriptor_pb2.FieldDescriptorProto.Type.items()
    number = 0
    for name, kind in kinds:
        if name in ("TYPE_GROUP", "TYPE_MESSAGE", "TYPE_ENUM"):
            continue
        for label in (descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, 3):
            number += 1
            field = f"{name.lower()}_{'one' if label == 1 else 'many'}"
            message.field.add(name=field, number=number, type=kind, label=label)
    message.field.add(name="self", number=99, type=11, label=1, type_name=".test.kinds.Kinds")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("test.kinds.Kinds")


KINDS = every_kind()


@pytest.mark.parametrize("message", [*MESSAGES, KINDS], ids=lambda message: message.name)
def test_any_message_is_written_and_read_as_protobuf_does(message: Descriptor) -> None:
    draw = random.Random(message.full_name)
    for _ in range(EXAMPLES):
        stated = random_message(message, draw)
        written = writer_of(message)(stated)
        assert written == MessageToDict(stated)
        problems = Problems()
        for form in (written, MessageToDict(stated, preserving_proto_field_name=True)):
            arguments = read_message(message, form, "", problems)
            if "google.protobuf.Any" in str(written) or problems.found:
                break
            assert GetMessageClass(message)(**arguments) == stated
        assert problems.found == []


READ: list[tuple[dict[str, Any], str]] = [
    ({"batchid": "x"}, "batchid"),
    ({"batchId": 7}, "batch_id"),
    ({"batchId": "a", "batch_id": "b"}, "batch_id"),
    ({"events": {}}, "events"),
    ({"events": [None]}, "events[0]"),
    ({"events": [{}, {"quantty": "1"}]}, "events[1].quantty"),
    ({"events": [{"quantity": 1}]}, "events[0].quantity"),
    ({"events": [{"eventTime": "2026-02-30T00:00:00Z"}]}, "events[0].event_time"),
    ({"events": [{"eventTime": 7}]}, "events[0].event_time"),
    ({"events": [{"properties": []}]}, "events[0].properties"),
    ({"events": [{"properties": {"a": 1}}]}, "events[0].properties['a']"),
    ({"includeGauges": "true"}, "include_gauges"),
    ({"includeGauges": 1}, "include_gauges"),
    ({"maxAnswerBytes": 2**31}, "max_answer_bytes"),
    ({"maxAnswerBytes": 1.5}, "max_answer_bytes"),
    ({"maxAnswerBytes": True}, "max_answer_bytes"),
    ({"maxAnswerBytes": "x"}, "max_answer_bytes"),
]


@pytest.mark.parametrize(("stated", "path"), READ, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named_by_its_path(stated: Any, path: str) -> None:
    problems = Problems()
    read_message(usage_pb2.UsageBatch.DESCRIPTOR, stated, "", problems)
    assert [one.path for one in problems.found] == [path]


def test_all_problems_are_found_and_the_first_fifty_kept() -> None:
    problems = Problems()
    read_message(usage_pb2.UsageBatch.DESCRIPTOR, {"events": [{"x": 1}] * 500, "y": 2}, "", problems)
    assert 50 <= len(problems.found) <= 60


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        ({"customer_ids": ["a"] * (MAX_ELEMENTS + 1)}, "customer_ids"),
        ({"usages": [{"properties": {str(key): "" for key in range(MAX_ENTRIES + 1)}}]}, "usages[0].properties"),
    ],
    ids=["a list", "a map"],
)
def test_what_is_too_long_is_refused_before_its_elements_are_read(stated: Any, path: str) -> None:
    problems = Problems()
    read_message(limit_service_pb2.BatchCheckUsageRequest.DESCRIPTOR, stated, "", problems)
    assert [one.path for one in problems.found] == [path]
    assert "write at most" in problems.found[0].description


def test_two_members_of_a_oneof_are_refused() -> None:
    problems = Problems()
    alert: dict[str, Any] = {"usageThresholdReached": {}, "spendThresholdReached": {}}
    read_message(alert_service_pb2.CreateAlertRequest.DESCRIPTOR, {"alert": alert}, "", problems)
    assert [one.path for one in problems.found] == ["alert.spend_threshold_reached"]


@pytest.mark.parametrize("value", [0, "ALERT_STATE_ACTIVE", 1])
def test_enums_have_names_and_numbers(value: Any) -> None:
    problems = Problems()
    read = read_message(alert_service_pb2.ListAlertsRequest.DESCRIPTOR, {"states": [value]}, "", problems)
    assert problems.found == []
    assert isinstance(read["states"][0], int)


@pytest.mark.parametrize("value", ["ACTIVE", 99, 1.0, True, None, {}])
def test_values_that_no_enum_has_are_refused(value: Any) -> None:
    problems = Problems()
    read_message(alert_service_pb2.ListAlertsRequest.DESCRIPTOR, {"states": [value]}, "", problems)
    assert [one.path for one in problems.found] == ["states[0]"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.1Z",
        "2026-01-31t12:00:00.123456789z",
        "2026-01-31T12:00:00+05:30",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "1969-12-31T23:59:59.5Z",
    ],
)
def test_times_are_read_and_written_to_the_nanosecond(text: str) -> None:
    expected: Any = usage_pb2.UsageEvent()
    Parse(f'{{"eventTime": "{text.upper()}"}}', expected)
    seconds, nanos = parse_timestamp(text)
    assert (seconds, nanos) == (expected.event_time.seconds, expected.event_time.nanos)
    assert write_timestamp(seconds, nanos) == expected.event_time.ToJsonString()


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00Z", "2026-13-01T00:00:00Z"),
        *("٢٠٢٦-01-31T12:00:00Z", "2026-01-31T24:00:01Z", "2026-01-31T12:00:00.1234567890Z"),
        *("0000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00"),
        "2026-01-31T12:00:00Z\n",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["0s", "1s", "1.5s", "-1.5s", "-0.5s", "3600s", "0.000000001s", "315576000000s"])
def test_durations_are_read_and_written_to_the_nanosecond(text: str) -> None:
    seconds, nanos = parse_duration(text)
    shown = write_duration(seconds, nanos)
    assert parse_duration(shown) == (seconds, nanos)
    expected = Duration()
    expected.FromJsonString(text)
    assert (seconds, nanos) == (expected.seconds, expected.nanos)
    assert shown == expected.ToJsonString()


@pytest.mark.parametrize("text", ["", "1", "1m", "s", "1.s", "1.0000000001s", "1e3s", "315576000001s", "- 1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_protobuf_agrees_that_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ProtobufError):
        Parse('{"nothing": 1}', usage_pb2.UsageBatch())
