"""Bad input: each kind has a precise status, and a bad event does not affect other events."""

from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from tests.support.server.running import status_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    Caller,
    Refusal,
    ShortTransition,
    beside,
    everything,
    explained,
    refusals,
    settings,
    shortened,
    usage_alert,
    values,
)

pytestmark = shares_server

Event = usage_pb2.UsageEvent
Spoil = Callable[[Event], object]

YEAR_ZERO = Timestamp(seconds=-62_135_596_801)
LONG = "x" * 129


def at(event: Event, **seconds: int) -> None:
    """Moves the time of an event."""
    moved = event.event_time.ToDatetime() + timedelta(**seconds)
    event.event_time.FromDatetime(moved)


def set_properties(event: Event, properties: dict[str, str]) -> None:
    event.properties.clear()
    event.properties.update(properties)


def add_unknown_field(event: Event) -> None:
    event.MergeFromString(b"\xda\x02\x03abc")  # field 43


BAD_FIELDS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "an unknown field": (add_unknown_field, ("",)),
    "nothing set": (lambda e: e.Clear(), (".event_id", ".customer_id", ".metric_id", ".quantity", ".event_time")),
    "no event_id": (lambda e: e.ClearField("event_id"), (".event_id",)),
    "no customer_id": (lambda e: e.ClearField("customer_id"), (".customer_id",)),
    "no metric_id": (lambda e: e.ClearField("metric_id"), (".metric_id",)),
    "no quantity": (lambda e: e.ClearField("quantity"), (".quantity",)),
    "no event_time": (lambda e: e.ClearField("event_time"), (".event_time",)),
    "exponent": (lambda e: setattr(e, "quantity", "1e999"), (".quantity",)),
    "NaN": (lambda e: setattr(e, "quantity", "NaN"), (".quantity",)),
    "infinity": (lambda e: setattr(e, "quantity", "-Infinity"), (".quantity",)),
    "60 digits": (lambda e: setattr(e, "quantity", "1" * 60), (".quantity",)),
    "39 digits": (lambda e: setattr(e, "quantity", "1" * 21 + "." + "1" * 18), (".quantity",)),
    "19 decimals": (lambda e: setattr(e, "quantity", "0." + "1" * 19), (".quantity",)),
    "plus": (lambda e: setattr(e, "quantity", "+1"), (".quantity",)),
    "blank": (lambda e: setattr(e, "quantity", " 1"), (".quantity",)),
    "newline": (lambda e: setattr(e, "quantity", "1\n"), (".quantity",)),
    "comma": (lambda e: setattr(e, "quantity", "1,5"), (".quantity",)),
    "hexadecimal": (lambda e: setattr(e, "quantity", "0x10"), (".quantity",)),
    "underscore": (lambda e: setattr(e, "quantity", "1_000"), (".quantity",)),
    "arabic digits": (lambda e: setattr(e, "quantity", "١٢"), (".quantity",)),
    "no digit before the point": (lambda e: setattr(e, "quantity", ".5"), (".quantity",)),
    "no digit after the point": (lambda e: setattr(e, "quantity", "5."), (".quantity",)),
    "malformed cost": (lambda e: setattr(e, "cost", "free"), (".cost",)),
    "currency without cost": (lambda e: setattr(e, "currency", "USD"), (".currency",)),
    "malformed currency": (lambda e: e.MergeFrom(Event(cost="1", currency="US$")), (".currency",)),
    "currency in small letters": (lambda e: e.MergeFrom(Event(cost="1", currency="usd")), (".currency",)),
    "control characters": (
        lambda e: e.MergeFrom(Event(event_id="a\x00b", customer_id="a\tb", metric_id="a\nb", subscription_id="\x9f")),
        (".event_id", ".customer_id", ".subscription_id", ".metric_id"),
    ),
    "blanks around ids": (
        lambda e: e.MergeFrom(Event(event_id=" a", customer_id="b\u2003", metric_id=" ", subscription_id="c ")),
        (".event_id", ".customer_id", ".subscription_id", ".metric_id"),
    ),
    "long ids": (
        lambda e: e.MergeFrom(Event(event_id=LONG, customer_id=LONG, metric_id=LONG, subscription_id=LONG)),
        (".event_id", ".customer_id", ".subscription_id", ".metric_id"),
    ),
    "65 properties": (lambda e: set_properties(e, {f"k{n}": "v" for n in range(65)}), (".properties",)),
    "empty key": (lambda e: set_properties(e, {"": "v"}), (".properties",)),
    "control characters in a key": (lambda e: set_properties(e, {"a\x01": "v"}), (".properties",)),
    "control characters in a value": (lambda e: set_properties(e, {"k": "a\x00"}), (".properties['k']",)),
    "long value": (lambda e: set_properties(e, {"k": "v" * 257}), (".properties['k']",)),
    "year 0": (lambda e: e.event_time.CopyFrom(YEAR_ZERO), (".event_time",)),
    "year 10000": (lambda e: e.event_time.CopyFrom(Timestamp(seconds=253_402_300_800)), (".event_time",)),
    "far beyond any year": (lambda e: e.event_time.CopyFrom(Timestamp(seconds=2**62)), (".event_time",)),
    "negative nanos": (lambda e: setattr(e.event_time, "nanos", -1), (".event_time",)),
    "too many nanos": (lambda e: setattr(e.event_time, "nanos", 1_000_000_000), (".event_time",)),
    "several fields": (
        lambda e: e.MergeFrom(Event(event_id="\x07", quantity="NaN", cost="x", currency="?")),
        (".event_id", ".quantity", ".cost", ".currency"),
    ),
}
BAD_TIMES: dict[str, tuple[Spoil, str, str]] = {
    "more than 5 minutes ahead": (
        lambda e: at(e, minutes=5, microseconds=1),
        "INVALID_ARGUMENT",
        "EVENT_IN_FUTURE",
    ),
    "a year ahead": (lambda e: at(e, days=365), "INVALID_ARGUMENT", "EVENT_IN_FUTURE"),
    "beyond the retention": (lambda e: at(e, days=-400), "FAILED_PRECONDITION", "EVENT_TOO_OLD"),
    "the epoch": (lambda e: e.event_time.CopyFrom(Timestamp()), "FAILED_PRECONDITION", "EVENT_TOO_OLD"),
    "the year 1": (
        lambda e: e.event_time.CopyFrom(Timestamp(seconds=-62_135_596_800)),
        "FAILED_PRECONDITION",
        "EVENT_TOO_OLD",
    ),
    "in a period that is closed for good": (lambda e: at(e, days=-46), "FAILED_PRECONDITION", "EVENT_TOO_OLD"),
}


async def test_bad_event_is_rejected_by_its_index_and_other_events_of_the_batch_count(caller: Caller) -> None:
    """One batch has each bad event between two good ones: each rejection states the faults of its own event only."""
    await caller.create(usage_alert(str(len(BAD_FIELDS) + len(BAD_TIMES))))
    events: list[Event] = []
    expected: list[Refusal] = []
    for spoil, paths in BAD_FIELDS.values():
        events += [caller.event(f"good-{len(events)}"), caller.event(f"bad-{len(events)}")]
        spoil(events[-1])
        index = len(events) - 1
        expected.append(
            Refusal(
                index, "INVALID_ARGUMENT", "EVENT_INVALID", tuple(f"batch.events[{index}]{path}" for path in paths)
            )
        )
    for spoil, code, reason in BAD_TIMES.values():
        events += [caller.event(f"good-{len(events)}"), caller.event(f"bad-{len(events)}")]
        spoil(events[-1])
        expected.append(Refusal(len(events) - 1, code, reason))
    answer = await caller.send(*events, gauges=True)
    assert refusals(answer) == expected
    assert [one.event_id for one in answer.rejected] == [events[one.index].event_id[:128] for one in answer.rejected]
    good = len(events) // 2
    assert (answer.accepted, answer.duplicates) == (good, 0)
    assert values(answer.gauges) == {("acme", "calls"): good}
    last = f"good-{len(events) - 2}"
    assert shortened(answer.transitions) == [ShortTransition("REACHED", str(good), str(good - 1), str(good), last)]
    assert await caller.event_count() == good


async def test_unusual_valid_events_count(caller: Caller) -> None:
    await caller.create(usage_alert("1"))
    digits = "9" * 20 + "." + "9" * 18
    events = [
        caller.event("e" * 128, digits, "ö" * 128, subscription="s" * 128),
        caller.event("back\\slash", "-" + digits),
        caller.event("\\.", "007"),
        caller.event("\\N", "-0"),
        caller.event('"quoted" {json}', "0.000000000000000001", region='a"b\\c', ключ="€"),
        caller.event("e m b e d d e d", "1", cost="0", currency="my.own_unit-1"),
        caller.event("👍🏽\u200d\u2028!", "1", empty=""),
        caller.event("many properties", "1"),
    ]
    set_properties(events[-1], {f"k{number}": "v" * 256 for number in range(64)})
    at(events[1], minutes=5)
    answer = await caller.send(*events, gauges=True)
    assert not answer.rejected
    assert answer.accepted == len(events)
    assert {str(value) for value in values(answer.gauges).values()} >= {digits}
    again = await caller.send(*events)
    assert (again.accepted, again.duplicates) == (0, len(events))


async def test_batch_of_bad_events_rejects_each_event(caller: Caller) -> None:
    answer = await caller.send(caller.event("e1", "x"), caller.event("e2", "y"))
    assert (answer.accepted, answer.duplicates) == (0, 0)
    assert [one.at for one in refusals(answer)] == [0, 1]


async def test_answer_with_4999_rejections_fits_the_default_limit_of_clients(caller: Caller) -> None:
    """A client that cannot read an answer above its 4 MiB would send the batch again for ever."""
    bad = "é" * 120 + "\x01"
    events = [
        caller.event(bad, "1" * 60, bad, metric=bad, cost="NaN", currency="??", at=caller.clock.now())
        for _ in range(4_999)
    ]
    answer = await caller.send(*events, caller.event("good"))
    assert answer.accepted == 1
    found = refusals(answer)
    assert [one.at for one in found] == list(range(4_999))
    assert {(one.code, one.reason) for one in found} == {("INVALID_ARGUMENT", "EVENT_INVALID")}
    assert len(found[0].paths) == 6


async def test_stream_continues_after_a_bad_event(caller: Caller) -> None:
    stream = caller.stream()
    for number in range(3):
        events = [caller.event(f"good-{number}"), caller.event(f"bad-{number}", "NaN")]
        await stream.write(
            alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(batch_id=str(number), events=events))
        )
    answers, error = await everything(stream)
    assert [(one.outcome.batch_id, one.outcome.accepted, len(one.outcome.rejected)) for one in answers] == [
        (str(number), 1, 1) for number in range(3)
    ]
    assert error is None


BatchRequest = alert_service_pb2.EvaluateUsageBatchRequest
WRONG_REQUESTS: dict[str, tuple[Callable[[Caller], BatchRequest], tuple[str, str, tuple[str, ...]]]] = {
    "empty": (lambda _: BatchRequest(), ("INVALID_ARGUMENT", "BATCH_EMPTY", ())),
    "5,001 events": (
        lambda caller: BatchRequest(
            batch=usage_pb2.UsageBatch(events=[caller.event(f"e{number}") for number in range(5_001)])
        ),
        ("INVALID_ARGUMENT", "BATCH_TOO_LARGE", ()),
    ),
    "long batch_id": (
        lambda caller: BatchRequest(batch=usage_pb2.UsageBatch(batch_id="b" * 129, events=[caller.event("e0")])),
        ("INVALID_ARGUMENT", "INVALID_FIELD", ("batch.batch_id",)),
    ),
}


@pytest.mark.parametrize("wrong", WRONG_REQUESTS)
async def test_malformed_batch_is_refused(caller: Caller, wrong: str) -> None:
    build, expected = WRONG_REQUESTS[wrong]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.alerts.EvaluateUsageBatch(build(caller), metadata=caller.metadata)
    assert explained(status_of(refused.value)) == expected
    assert await caller.event_count() == 0


@pytest.mark.parametrize("wrong", WRONG_REQUESTS)
async def test_malformed_batch_ends_a_stream_after_the_answers_to_earlier_batches(caller: Caller, wrong: str) -> None:
    build, expected = WRONG_REQUESTS[wrong]
    stream = caller.stream()
    for number in range(5):
        events = [caller.event(f"before-{number}")]
        await stream.write(
            alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(batch_id=str(number), events=events))
        )
    # The two requests have the same fields under the same numbers.
    await stream.write(alert_service_pb2.EvaluateUsageRequest.FromString(build(caller).SerializeToString()))
    answers, error = await everything(stream)
    assert [(one.outcome.batch_id, one.outcome.accepted) for one in answers] == [
        (str(number), 1) for number in range(5)
    ]
    assert error is not None
    assert explained(status_of(error)) == expected
    assert await caller.event_count() == 5


async def test_message_above_the_size_limit_ends_only_its_own_stream(caller: Caller) -> None:
    async with beside(caller, settings(max_message_bytes=10_000)) as small:
        # Only a little above the limit: gRPC itself refuses a much larger message, without an error reason.
        large: list[usage_pb2.UsageEvent] = []
        while sum(event.ByteSize() for event in large) <= 10_000:
            large.append(caller.event(f"large-{len(large)}", filler="x" * 200))
        stream = small.stream()
        await stream.write(
            alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=[caller.event("before")]))
        )
        await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=large)))
        [answer], error = await everything(stream)
        assert answer.outcome.accepted == 1
        assert error is not None
        assert explained(status_of(error)) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", ())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await small.send(*large)
        assert explained(status_of(refused.value)) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", ())
        assert (await small.send(caller.event("after"))).accepted == 1
    assert await caller.event_count() == 2
