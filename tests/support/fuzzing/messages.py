"""Bad requests, made of good ones: fields with odd values, and encodings with changed bytes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

MOST_CHANGES = 3  # of one request
MOST_COPIES = 40  # of one element of a list
MOST_BYTES = 200_000  # of one request; the server refuses larger ones before it reads them

_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\u202e",
        "é" * 200,
        "x" * 129,
        "x" * 5_000,
        "🜁" * 64,
        "\n",
        "\t",
        "%s%n",
        "\\",
        "'",
        '"',
    ),
    *(
        "0",
        "-0",
        "1e9",
        "NaN",
        "Infinity",
        "-1",
        "9" * 38,
        "9" * 39,
        "0." + "0" * 17 + "1",
        "1." + "9" * 18,
        "٣",
        "1_0",
    ),
    *("USD", "usd", "EUR", "Europe/Berlin", "../../etc", "alt_00000000000000000000000001", "*", "acme", "tokens"),
    *("https://hooks.example.com/x", "http://[::1]:0/", "whsec_AAAA", "whsk_", "thresholds", "alert.thresholds"),
)
_NUMBERS = (0, 1, -1, 2, 49, 50, 1_000, 1_001, 2**31 - 1, -(2**31))
_LARGE_NUMBERS = (*_NUMBERS, 2**63 - 1, -(2**63), 253_402_300_799, 253_402_300_800, -62_135_596_801)

_INT32 = {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32}
_INT64 = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64}


@dataclass(frozen=True, slots=True)
class Good:
    """A request that is answered, and its method."""

    method: MethodDescriptor
    request: Message

    @property
    def path(self) -> str:
        """The method as on the wire."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def bad_encoding(good: Good, others: Sequence[Good], draw: random.Random) -> bytes:
    """The encoding of a bad request; now and then it is a good one."""
    request = type(good.request)()
    request.CopyFrom(good.request)
    if draw.random() < 0.75:
        for _ in range(draw.randint(1, MOST_CHANGES)):
            _change_field(request, draw)
    encoded = request.SerializeToString()
    if draw.random() < 0.4:
        encoded = _changed(encoded, draw.choice(others).request.SerializeToString(), draw)
    return encoded[:MOST_BYTES]


def _change_field(message: Any, draw: random.Random) -> None:
    """Changes one field of the message, or of a message in it."""
    while True:
        fields = message.DESCRIPTOR.fields
        if not fields:
            return
        field = draw.choice(fields)
        below = _message_below(message, field, draw)
        if below is None or draw.random() < 0.3:
            _set(message, field, draw)
            return
        message = below


def _message_below(message: Any, field: FieldDescriptor, draw: random.Random) -> Any | None:
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return None
    if field.is_repeated:
        elements = getattr(message, field.name)
        return draw.choice(elements) if elements else None
    return getattr(message, field.name) if message.HasField(field.name) else None


def _set(message: Any, field: FieldDescriptor, draw: random.Random) -> None:
    name = field.name
    if draw.random() < 0.25:
        message.ClearField(name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        entries = getattr(message, name)
        for number in range(draw.choice((1, 2, MOST_COPIES))):
            entries[f"{draw.choice(_TEXTS)[:200]}{number}"] = draw.choice(_TEXTS)
    elif field.is_repeated:
        _set_list(getattr(message, name), field, draw)
    elif field.message_type is not None:
        getattr(message, name).SetInParent()
    else:
        setattr(message, name, _value(field, draw))


def _set_list(elements: Any, field: FieldDescriptor, draw: random.Random) -> None:
    if field.message_type is None:
        elements.extend(_value(field, draw) for _ in range(draw.choice((1, 2, MOST_COPIES))))
    elif elements:
        copied = draw.choice(elements)
        for _ in range(draw.choice((1, MOST_COPIES))):
            elements.add().CopyFrom(copied)
    else:
        elements.add()


def _value(field: FieldDescriptor, draw: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw.randbytes(draw.choice((0, 1, 64)))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return draw.random() < 0.5
    if field.enum_type is not None:
        return draw.choice((*(value.number for value in field.enum_type.values), 99, -1))
    if field.type in _INT32:
        return draw.choice(_NUMBERS)
    if field.type in _INT64:
        return draw.choice(_LARGE_NUMBERS)
    return abs(draw.choice(_NUMBERS)) % 2**31


def _changed(encoded: bytes, other: bytes, draw: random.Random) -> bytes:
    """The bytes with one to four changes: flipped, cut, repeated, replaced, or mixed with another encoding."""
    changes: tuple[Callable[[bytearray], None], ...] = (
        lambda data: _flip(data, draw),
        lambda data: _cut(data, draw),
        lambda data: _repeat(data, draw),
        lambda data: _insert(data, draw.randbytes(draw.randint(1, 12)), draw),
        lambda data: _insert(data, other, draw),
        # A length or a field number that does not end, and groups without an end.
        lambda data: _insert(data, draw.choice((b"\xff" * 10, b"\x0b" * 120, b"\x0a\xff\xff\xff\x7f")), draw),
    )
    data = bytearray(encoded)
    for _ in range(draw.randint(1, 4)):
        draw.choice(changes)(data)
    return bytes(data)


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random) -> None:
    if data:
        start = draw.randrange(len(data))
        del data[start : start + draw.randint(1, len(data))]


def _repeat(data: bytearray, draw: random.Random) -> None:
    if data:
        start = draw.randrange(len(data))
        part = bytes(data[start : start + draw.randint(1, 64)])
        _insert(data, part * draw.choice((1, 2, 50)), draw)


def _insert(data: bytearray, part: bytes, draw: random.Random) -> None:
    at = draw.randint(0, len(data))
    data[at:at] = part
