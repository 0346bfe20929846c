"""Encoded usage requests: of any events, in any encoding, and mutated."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from generated.tidemark.v1 import alert_service_pb2, usage_pb2

LONGEST = 128  # characters of an id
NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
# Clocks at the borders of years, months and leap days.
CLOCKS = [
    NOON,
    datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
    datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC),
    datetime(2100, 3, 1, tzinfo=UTC),
]
RETENTION = timedelta(days=400)
LONG_RETENTION = timedelta(days=36_500)  # it reaches back to years before 1970
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

VALID_IDS = [
    "e1",
    "a",
    "~",
    "a b",
    "x" * LONGEST,
    "\\",
    "ü",
    "é" * LONGEST,
    "a\u2003b",
    "😀" * LONGEST,
    "\ufeff",
    "1",
]
BAD_IDS = [
    *("", " ", " a", "a ", "a\x00", "\x1f", "\x7f", "a\x80", "\x9fa", "\u2003b", "b\u00a0", "b\u3000", "c\u2028"),
    *("x" * (LONGEST + 1), "é" * (LONGEST + 1), "x" * 600),
]
VALID_AMOUNTS = [
    *("1", "0", "-0", "007", "1.50", "-12.5", "1.000", "0.000000000000000001", "9" * 38, "9" * 20 + "." + "9" * 18),
    *("-" + "9" * 20 + "." + "9" * 18, "0" * 38, "12345678901234567890123", "1" * 16, "1" * 17),
]
BAD_AMOUNTS = [
    *("", "-", ".", ".5", "5.", "-.5", "1e5", "1E-7", "+1", "--1", "1.2.3", " 1", "1 ", "1\n", "\n1", "1,5", "0x10"),
    *("NaN", "Infinity", "1_000", "١", "\uff11", "9" * 39, "1." + "1" * 19, "9" * 21 + "." + "1" * 18, "9" * 1000),
]
VALID_CURRENCIES = ["USD", "usdx", "us", "A", "a1b", "ab.", "x" * 64, "credits_1", "-._"]
BAD_CURRENCIES = ["usd", "Usd", "usD", "US$", "x" * 65, "ü", " USD", "U\x00D"]
VALID_VALUES = ["", "eu", "x" * 256, "ü" * 256, " padded ", "\u2028", "😀"]
BAD_VALUES = ["x" * 257, "a\x00", "\x7f", "\x85", "a\x9f", "é" * 257, "x" * 1_025]


def _texts(valid: list[str], bad: list[str], *, any_text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Nine of ten are valid, so that a whole batch often is."""
    good = st.sampled_from(valid)
    return st.integers(0, 59).flatmap(
        lambda draw: st.sampled_from(bad) if draw == 0 else any_text if draw == 1 else good
    )


def _times(clock: datetime) -> st.SearchStrategy[tuple[int, int] | None]:
    """Seconds and nanos; None: the time is unset."""
    around = [
        clock,
        clock - timedelta(days=35),
        clock - RETENTION,
        clock - RETENTION + timedelta(microseconds=1),
        clock + timedelta(minutes=5),
        clock + timedelta(minutes=5, microseconds=1),
    ]
    second = (clock - _EPOCH) // _SECOND
    edges = st.builds(
        lambda time, nanos: ((time - _EPOCH) // _SECOND, time.microsecond * 1000 + nanos),
        st.sampled_from(around),
        st.sampled_from([0, 1, 999]),
    )
    near = st.tuples(st.integers(second - 3_000_000, second - 1), st.integers(0, 999_999_999))
    odd = st.sampled_from(
        [
            *(None, (0, 0), (-1, 0), (2**62, 0), (-(2**62), 5), (253_402_300_799, 0), (253_402_300_800, 0), (1, -1)),
            *((second, 1_000_000_000), (second, 2**31 - 1), (second, -5), (-62_135_596_801, 0)),
        ]
    )
    return st.integers(0, 39).flatmap(lambda draw: odd if draw == 0 else edges if draw < 3 else near)


@st.composite
def events(draw: st.DrawFn, clock: datetime) -> usage_pb2.UsageEvent:
    """An event, mostly a valid one; the edges of each field are drawn often."""
    any_text = st.text(max_size=12)
    ids = _texts(VALID_IDS, BAD_IDS, any_text=any_text)
    amounts = _texts(VALID_AMOUNTS, BAD_AMOUNTS, any_text=st.from_regex(r"-?[0-9.]{1,45}", fullmatch=True))
    event = usage_pb2.UsageEvent(event_id=draw(ids), customer_id=draw(ids), quantity=draw(amounts))
    kind = draw(st.integers(0, 9))
    if kind < 8:
        event.metric_id = draw(ids)
    if kind in (7, 8):  # with both of them it is not valid
        event.event_name = draw(ids)
    if draw(st.booleans()):
        event.subscription_id = draw(ids)
    if draw(st.integers(0, 4)) == 0:
        event.reservation_id = draw(ids)
    if draw(st.booleans()):
        event.cost = draw(amounts)
    if (event.cost and draw(st.booleans())) or draw(st.integers(0, 49)) == 0:
        event.currency = draw(_texts(VALID_CURRENCIES, BAD_CURRENCIES, any_text=any_text))
    if draw(st.integers(0, 3)) == 0:
        values = _texts(VALID_VALUES, BAD_VALUES, any_text=any_text)
        event.properties.update(draw(st.dictionaries(ids, values, max_size=4)))
    if (time := draw(_times(clock))) is not None:
        event.event_time.SetInParent()
        event.event_time.seconds, event.event_time.nanos = time
    return event


@st.composite
def requests(draw: st.DrawFn, clock: datetime) -> alert_service_pb2.EvaluateUsageRequest:
    """A request with up to six events."""
    batch = usage_pb2.UsageBatch(
        batch_id=draw(st.sampled_from(["", "b1", "ü", "x" * 129])),
        events=draw(st.lists(events(clock), max_size=6)),
        include_gauges=draw(st.booleans()),
        max_answer_bytes=draw(st.sampled_from([0, 1, 2**21, 2**31 - 1, -1])),
    )
    return alert_service_pb2.EvaluateUsageRequest(batch=batch)


def valid_event(number: int, time: datetime = NOON) -> usage_pb2.UsageEvent:
    """A valid event with all fields that one can have."""
    event = usage_pb2.UsageEvent(
        event_id=f"e{number}",
        customer_id=f"customer-{number % 7}",
        subscription_id="pro",
        metric_id="calls",
        quantity=f"{number}.50",
        cost="0.25",
        currency="USD",
        properties={"region": "eu", "user": f"ü{number}"},
    )
    event.event_time.FromDatetime(time)
    return event


def request_of(*events: usage_pb2.UsageEvent, **batch: Any) -> bytes:
    """An encoded request with these events."""
    return alert_service_pb2.EvaluateUsageRequest(
        batch=usage_pb2.UsageBatch(events=events, **batch)
    ).SerializeToString()


def mutated(events: Sequence[bytes], draw: random.Random) -> bytes:
    """A request of these encoded events, changed at random: as a whole, within one event, or within one field.

    The lengths around a changed part are right, so that the rest is still read.
    """
    level = draw.randrange(3)
    if level == 0:
        return _changed(request_with(*events), draw)
    position = draw.randrange(len(events))
    event = events[position]
    if level == 1:
        event = _changed(event, draw)
    else:
        fields = fields_of(event)
        number = draw.randrange(len(fields))
        fields[number] = field(fields[number][0], _changed(fields[number][2:], draw))
        event = b"".join(fields)
    return request_with(*events[:position], event, *events[position + 1 :])


def _changed(message: bytes, draw: random.Random) -> bytes:
    """The bytes with one to three random changes."""
    changed = bytearray(message)
    for _ in range(draw.randint(1, 3)):
        if changed:
            draw.choice(_MUTATIONS)(changed, draw)
    return bytes(changed)


def _flip(message: bytearray, draw: random.Random) -> None:
    message[draw.randrange(len(message))] ^= 1 << draw.randrange(8)


def _set(message: bytearray, draw: random.Random) -> None:
    message[draw.randrange(len(message))] = draw.choice(
        b"\x00\x01\x08\x0a\x10\x12\x18\x20\x42\x4a\x52\x7f\x80\xc2\xff"
    )


def _insert(message: bytearray, draw: random.Random) -> None:
    message[(at := draw.randrange(len(message))) : at] = draw.choice(
        [b"\x00", b"\x80", b"\xff" * 4, b"\xff" * 9, b"\xff" * 10, b"\x80\x00", b"\x80\x80\x80\x80\x00", b"\x12\x00"]
    )


def _delete(message: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(message))
    del message[at : at + draw.randint(1, 5)]


def _truncate(message: bytearray, draw: random.Random) -> None:
    del message[draw.randrange(len(message)) :]


def _repeat(message: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(message))
    message[at:at] = message[at : at + draw.randint(1, 40)]


def _swap(message: bytearray, draw: random.Random) -> None:
    first, second = sorted(draw.randrange(len(message)) for _ in range(2))
    message[first:] = message[second:] + message[first:second]


_MUTATIONS = (_flip, _set, _insert, _delete, _truncate, _repeat, _swap)


def fields_of(message: bytes) -> list[bytes]:
    """The encoded fields of a message that has only fields with a length of one byte."""
    fields = []
    while message:
        end = 2 + message[1]
        assert message[1] < 0x80
        fields.append(message[:end])
        message = message[end:]
    return fields


def field(tag: int, content: bytes) -> bytes:
    """An encoded field with a length."""
    return bytes([tag]) + _number(len(content)) + content


def numbered_field(number: int, content: bytes) -> bytes:
    """An encoded field with a length, by its number."""
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(number: int) -> bytes:
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def request_with(*encoded_events: bytes) -> bytes:
    """A request of events that are encoded already."""
    return field(0x0A, b"".join(field(0x12, event) for event in encoded_events))


def with_field(name: str, value: str) -> usage_pb2.UsageEvent:
    """A valid event, but perhaps for one field; `key` and `value` are those of a property."""
    event = valid_event(1)
    if name == "event_name":
        event.metric_id = ""
    if name == "key":
        event.properties[value] = "v"
    elif name == "value":
        event.properties["k"] = value
    else:
        setattr(event, name, value)
    return event
