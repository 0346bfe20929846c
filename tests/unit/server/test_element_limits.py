"""The lists and maps of requests are counted before protobuf decodes them, in every method and at every depth."""

import random
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from generated.tidemark.v1 import account_service_pb2, alert_service_pb2
from proto.documents.contract import METHODS
from server.calls.element_limits import MAX_ELEMENTS, MAX_FIELDS, excess
from server.calls.errors import FieldViolation
from tests.support.gateway.random_messages import random_message
from tests.support.usage.encoding import numbered_field as encoded

REQUESTS = sorted({method.input_type for method in METHODS}, key=lambda one: one.full_name)
MUTATIONS = 3_000


def found(message: bytes, kind: Descriptor) -> FieldViolation | None:
    """The violation of a message."""
    return next((one for one in excess(message, kind) if one is not None), None)


def elements(of: FieldDescriptor, count: int) -> bytes:
    """So many elements of a list or map, encoded."""
    if of.message_type is not None:
        return encoded(of.number, b"") * count
    if of.type == FieldDescriptor.TYPE_STRING:
        return encoded(of.number, b"x") * count
    return encoded(of.number, b"\x01" * count)  # numbers, packed


Wrap = Callable[[bytes], bytes]


def lists_of(
    kind: Descriptor, path: str = "", wrap: Wrap = lambda inner: inner, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, FieldDescriptor, Wrap]]:
    """Each list and map in a message: its path, its field, and what puts its elements into the message."""
    for each in kind.fields:
        at = f"{path}.{each.name}" if path else each.name
        below = each.message_type
        if each.is_repeated:
            yield at, each, wrap
            at += "[0]"
        if below is not None and not below.GetOptions().map_entry and below.full_name not in above:

            def inside(inner: bytes, each: FieldDescriptor = each) -> bytes:
                return wrap(encoded(each.number, inner))

            yield from lists_of(below, at, inside, above | {below.full_name})


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_every_list_and_map_of_a_request_has_a_limit(kind: Descriptor) -> None:
    for path, each, wrap in lists_of(kind):
        assert found(wrap(elements(each, MAX_ELEMENTS)), kind) is None
        violation = found(wrap(elements(each, MAX_ELEMENTS + 1)), kind)
        entry = each.message_type
        if "." not in path and entry is not None and not entry.GetOptions().map_entry and entry.fields:
            has_lists = any(one.is_repeated or one.message_type is not None for one in entry.fields)
            assert (violation is None) == has_lists, path  # the method itself says how many it takes
        else:
            assert violation is not None, path
            assert (violation.path, "2,000" in violation.description) == (path, True)


def test_parts_of_one_message_are_counted_together() -> None:
    kind = account_service_pb2.PutCustomerRequest.DESCRIPTOR
    customer = kind.fields_by_name["customer"]
    assert customer.message_type is not None
    aliases = customer.message_type.fields_by_name["aliases"]
    half = encoded(customer.number, elements(aliases, MAX_ELEMENTS // 2 + 1))
    assert found(half, kind) is None
    violation = found(half + half, kind)
    assert violation is not None
    assert violation.path == "customer.aliases"


def test_elements_of_a_list_are_counted_apart() -> None:
    kind = alert_service_pb2.BatchCreateAlertsRequest.DESCRIPTOR
    [(path, labels, wrap)] = [one for one in lists_of(kind) if one[0] == "requests[0].alert.labels"]
    one = wrap(elements(labels, MAX_ELEMENTS - 1))
    assert found(one * 3, kind) is None
    violation = found(one * 2 + wrap(elements(labels, MAX_ELEMENTS + 1)), kind)
    assert violation is not None
    assert violation.path == path.replace("0", "2")


def test_the_fields_of_a_message_have_a_limit() -> None:
    kind = alert_service_pb2.ListAlertsRequest.DESCRIPTOR
    assert found(b"\x98\xf6\x01\x01" * (MAX_FIELDS - 500), kind) is None
    violation = found(b"\x98\xf6\x01\x01" * (MAX_FIELDS + 500), kind)
    assert violation is not None
    assert "200,000" in violation.description


@pytest.mark.parametrize(
    "message", [b"\x0a", b"\x0a\x05a", b"\xff" * 11, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0e"]
)
def test_what_protobuf_cannot_decode_is_refused(message: bytes) -> None:
    kind = alert_service_pb2.CreateAlertRequest
    with pytest.raises(DecodeError):
        kind.FromString(message)
    with pytest.raises(DecodeError):
        found(message, kind.DESCRIPTOR)


def test_whatever_protobuf_decodes_is_counted() -> None:
    draw = random.Random(16)
    decoded = 0
    for _ in range(MUTATIONS):
        kind = draw.choice(REQUESTS)
        data = bytearray(random_message(kind, draw).SerializeToString())
        for _ in range(draw.randint(0, 3)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        message = bytes(data)
        try:
            GetMessageClass(kind).FromString(message)
        except DecodeError:
            continue
        decoded += 1
        assert found(message, kind) is None
    assert decoded > MUTATIONS // 2
