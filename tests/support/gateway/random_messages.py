"""Random messages of any type of the contract: each field is set now and then, with values that JSON can say."""

import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

_TEXTS = ("", "a", "acme", "a/b", "a:b", "a b+c&d=e", "é🜁", "%2F", "x.y", '"quoted"', "[0]", "\\", "1.50", "?#")
_MOST = 3  # elements of a list
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def random_message(descriptor: Descriptor, draw: random.Random, depth: int = 0) -> Message:
    """A message of the type; depth: of it in another one."""
    made = GetMessageClass(descriptor)()
    message: Any = made
    if descriptor.full_name == "google.protobuf.Timestamp":
        message.seconds = draw.randint(-62_135_596_800, 253_402_300_799)
        message.nanos = draw.choice((0, 1, 120_000_000, 123_456_000, 999_999_999))
    elif descriptor.full_name == "google.protobuf.Duration":
        sign = draw.choice((1, -1))
        message.seconds = sign * draw.randint(0, 315_576_000_000)
        message.nanos = sign * draw.choice((0, 1, 500_000_000, 999_999_999))
    elif descriptor.full_name == "google.protobuf.FieldMask":
        message.paths.extend(draw.sample(("thresholds", "display_name", "scope.customer"), draw.randint(1, 3)))
    elif descriptor.full_name == "google.protobuf.Any":
        message.Pack(error_details_pb2.ErrorInfo(reason=draw.choice(_TEXTS), metadata={"a": "b"}))
    else:
        chosen = {oneof.name: draw.choice(oneof.fields).name for oneof in descriptor.oneofs}
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and chosen[oneof.name] != field.name:
                continue
            if draw.random() < (0.6 if depth < 3 else 0.15):
                _set(message, field, draw, depth)
    return made


def _set(message: Any, field: FieldDescriptor, draw: random.Random, depth: int) -> None:
    below = field.message_type
    if below is not None and below.GetOptions().map_entry:
        for _ in range(draw.randint(0, _MOST)):
            value = below.fields_by_name["value"]
            key = draw.choice(_TEXTS)
            if value.message_type is not None:
                getattr(message, field.name)[key].CopyFrom(random_message(value.message_type, draw, depth + 1))
            else:
                getattr(message, field.name)[key] = random_value(value, draw)
    elif field.is_repeated:
        made = [_element(field, draw, depth) for _ in range(draw.randint(0, _MOST))]
        getattr(message, field.name).extend(made)
    elif below is not None:
        getattr(message, field.name).CopyFrom(random_message(below, draw, depth + 1))
    else:
        setattr(message, field.name, random_value(field, draw))


def _element(field: FieldDescriptor, draw: random.Random, depth: int) -> Any:
    if field.message_type is not None:
        return random_message(field.message_type, draw, depth + 1)
    return random_value(field, draw)


def random_value(field: FieldDescriptor, draw: random.Random) -> Any:
    """A value of a field that is no message."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw.randbytes(draw.randint(0, 9))
    if field.enum_type is not None:
        return draw.choice(field.enum_type.values).number
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if field.cpp_type in _LIMITS:
        low, high = _LIMITS[field.cpp_type]
        return draw.choice((0, 1, -1 if low else 7, low, high, draw.randint(low, high)))
    return draw.choice((0.0, 1.5, -2.25e30, float("inf")))
