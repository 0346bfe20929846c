"""Messages as JSON, in the mapping of proto3: lowerCamelCase names, 64-bit integers as texts, unset fields left out.

The functions of a message type are made once. They take a fifth of the time of protobuf's own, which looks up each
field anew.
"""

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from gateway.transcoding.times import write_duration, write_timestamp

Write = Callable[[Any], Any]

_LONG = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}
_FLOATS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}
_DETAILS = {
    each.full_name: GetMessageClass(each) for each in error_details_pb2.DESCRIPTOR.message_types_by_name.values()
}


@cache
def writer_of(message: Descriptor) -> Write:
    """The function that makes a dictionary of a message of this type, ready for a JSON encoder."""
    known = _KNOWN.get(message.full_name)
    if known is not None:
        return known
    if message.full_name.startswith("google.protobuf."):
        return MessageToDict
    fields: dict[int, tuple[str, Write]] = {}

    def write(value: Message) -> dict[str, Any]:
        if not fields:  # not before the first message: messages can contain themselves
            fields.update({field.number: (field.json_name, _field(field)) for field in message.fields})
        found = {}
        for field, stated in value.ListFields():
            name, converted = fields[field.number]
            found[name] = converted(stated)
        return found

    return write


def _field(field: FieldDescriptor) -> Write:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        value = _single(message.fields_by_name["value"])
        is_bool = message.fields_by_name["key"].cpp_type == FieldDescriptor.CPPTYPE_BOOL
        if is_bool:
            return lambda stated: {str(key).lower(): value(each) for key, each in stated.items()}
        return lambda stated: {str(key): value(each) for key, each in stated.items()}
    single = _single(field)
    if field.is_repeated:
        if single is _same:
            return list
        return lambda stated: [single(each) for each in stated]
    return single


def _single(field: FieldDescriptor) -> Write:
    if field.message_type is not None:
        return writer_of(field.message_type)
    if field.enum_type is not None:
        names = {value.number: value.name for value in reversed(field.enum_type.values)}
        return lambda number: names.get(number, number)
    if field.cpp_type in _LONG:
        return str
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda stated: b64encode(stated).decode()
    if field.cpp_type in _FLOATS:
        return lambda stated: _float(stated, field)
    return _same


def _same(value: Any) -> Any:
    return value


def _float(value: Any, field: FieldDescriptor) -> Any:
    """As protobuf writes it: the shortest text of a 32-bit number, and names for what JSON cannot say."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.9g}") if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else value


def _any(value: Any) -> Any:
    """A detail of an error: its type, and its fields."""
    made = _DETAILS.get(value.type_url.rpartition("/")[2])
    if made is None:
        return MessageToDict(value)
    detail = made.FromString(value.value)
    return {"@type": value.type_url, **writer_of(detail.DESCRIPTOR)(detail)}


_KNOWN: dict[str, Write] = {
    "google.protobuf.Timestamp": lambda value: write_timestamp(value.seconds, value.nanos),
    "google.protobuf.Duration": lambda value: write_duration(value.seconds, value.nanos),
    "google.protobuf.Any": _any,
}
