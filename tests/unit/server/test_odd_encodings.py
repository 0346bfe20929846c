"""Usage requests in encodings that no encoder writes: the native decoder and Python make the same of each."""

import pytest

from tests.support.usage.decoding import assert_read_alike, compiled
from tests.support.usage.encoding import field, fields_of, request_with, valid_event

ENCODED = fields_of(valid_event(1).SerializeToString())
TIME = next(one for one in ENCODED if one[0] == 0x42)
PROPERTIES = [one for one in ENCODED if one[0] == 0x4A]
OTHERS = [one for one in ENCODED if one[0] != 0x4A]
ODD_EVENTS: dict[str, bytes] = {
    "a field twice": b"".join(ENCODED) + field(0x12, b"other"),
    "a field twice, first empty": field(0x12, b"") + b"".join(ENCODED),
    "two halves of a time": b"".join(one for one in ENCODED if one is not TIME)
    + field(0x42, b"\x08\x80\xa0\xda\xcd\x06")
    + field(0x42, b"\x10\x05"),
    "seconds twice": b"".join(one for one in ENCODED if one is not TIME) + field(0x42, TIME[2:] + TIME[2:]),
    "a time with an unknown field": b"".join(one for one in ENCODED if one is not TIME)
    + field(0x42, TIME[2:] + b"\x18\x01"),
    "nanos of 64 bits": b"".join(one for one in ENCODED if one is not TIME)
    + field(0x42, TIME[2:] + b"\x10\x80\x80\x80\x80\x80\x20"),
    "a property between other fields": PROPERTIES[0] + b"".join(OTHERS) + PROPERTIES[1],
    "a property twice": b"".join(ENCODED) + field(0x4A, field(0x0A, b"region") + field(0x12, b"us")),
    "a property with its value first": b"".join(ENCODED) + field(0x4A, field(0x12, b"us") + field(0x0A, b"zone")),
    "a property without a value": b"".join(ENCODED) + field(0x4A, field(0x0A, b"zone")),
    "a property without a key": b"".join(ENCODED) + field(0x4A, field(0x12, b"us")),
    "an empty property": b"".join(ENCODED) + field(0x4A, b""),
    "a property with an unknown field": b"".join(ENCODED) + field(0x4A, field(0x0A, b"zone") + field(0x1A, b"x")),
    "a property with two keys": b"".join(ENCODED) + field(0x4A, field(0x0A, b"zone") + field(0x0A, b"y")),
    "an unknown field": b"".join(ENCODED) + field(0x62, b"x"),
    "an unknown number": b"".join(ENCODED) + b"\x58\x05",
    "a field of another type": b"".join(ENCODED) + b"\x10\x05",
    "a group": b"".join(ENCODED) + b"\x5b\x5c",
    "a group that does not end": b"".join(ENCODED) + b"\x5b",
    "field zero": b"".join(ENCODED) + b"\x02\x00",
    "a field number of two bytes": b"".join(ENCODED) + b"\x8a\x00\x01x",
    "a large field number": b"".join(ENCODED) + b"\xda\x02\x03abc",
    "a length of two bytes for one": b"".join(OTHERS[1:]) + b"\x0a\x82\x00e1",
    "a length of five bytes for one": b"".join(OTHERS[1:]) + b"\x0a\x82\x80\x80\x80\x00e1",
    "a length beyond the end": b"".join(ENCODED) + b"\x52\x7f",
    "a length of 2^63": b"".join(ENCODED) + b"\x52" + b"\xff" * 9 + b"\x01",
    "a length that is cut off": b"".join(ENCODED) + b"\x52\x80",
    "a tag that is cut off": b"".join(ENCODED) + b"\x80",
    "bytes that are not UTF-8": b"".join(OTHERS[1:]) + b"\x0a\x02\xc3\x28",
    "a surrogate": b"".join(OTHERS[1:]) + b"\x0a\x03\xed\xa0\x80",
    "an overlong character": b"".join(OTHERS[1:]) + b"\x0a\x02\xc0\x80",
    "a character beyond Unicode": b"".join(OTHERS[1:]) + b"\x0a\x04\xf4\x90\x80\x80",
    "a character that is cut off": b"".join(OTHERS[1:]) + b"\x0a\x02e\xc2",
    "a key that is not UTF-8": b"".join(ENCODED) + field(0x4A, field(0x0A, b"\xff") + field(0x12, b"v")),
    "a value that is not UTF-8": b"".join(ENCODED) + field(0x4A, field(0x0A, b"k") + field(0x12, b"\xff")),
    "fields in reverse order": b"".join(reversed(OTHERS)),
    "nothing": b"",
}


@compiled
@pytest.mark.parametrize("name", ODD_EVENTS)
def test_event_in_an_odd_encoding_is_read_alike_by_both(name: str) -> None:
    plain = valid_event(2).SerializeToString()
    for events in ((ODD_EVENTS[name],), (plain, ODD_EVENTS[name]), (ODD_EVENTS[name], plain)):
        assert_read_alike(request_with(*events))


EVENT = field(0x12, valid_event(1).SerializeToString())
ODD_REQUESTS: dict[str, bytes] = {
    "nothing": b"",
    "an empty batch": field(0x0A, b""),
    "a batch without events": field(0x0A, field(0x0A, b"b")),
    "two batches": field(0x0A, EVENT) * 2,
    "an unknown field beside the batch": field(0x0A, EVENT) + b"\x10\x01",
    "an unknown field in the batch": field(0x0A, EVENT + b"\x28\x01"),
    "a batch_id between events": field(0x0A, EVENT + field(0x0A, b"b") + EVENT),
    "a batch_id twice": field(0x0A, field(0x0A, b"a") + EVENT + field(0x0A, b"b")),
    "a batch_id that is not UTF-8": field(0x0A, field(0x0A, b"\xff") + EVENT),
    "include_gauges of two": field(0x0A, EVENT + b"\x18\x02"),
    "include_gauges set and unset": field(0x0A, b"\x18\x01" + EVENT + b"\x18\x00"),
    "include_gauges of no bytes": field(0x0A, EVENT + b"\x18"),
    "max_answer_bytes below zero": field(0x0A, EVENT + b"\x20" + b"\xff" * 9 + b"\x01"),
    "max_answer_bytes of 2^32": field(0x0A, EVENT + b"\x20\x80\x80\x80\x80\x10"),
    "a batch that is cut off": field(0x0A, EVENT)[:-1],
    "a byte after the batch": field(0x0A, EVENT) + b"\x0a",
    "a batch that is a number": b"\x08\x05",
    "an event that is a number": field(0x0A, b"\x10\x05"),
    "an event of no bytes": field(0x0A, b"\x12\x00"),
}


@compiled
@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_request_in_an_odd_encoding_is_read_alike_by_both(name: str) -> None:
    assert_read_alike(ODD_REQUESTS[name])
