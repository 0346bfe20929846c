"""Messages from JSON, in the mapping of proto3, with all that is wrong and where.

A JSON value becomes the arguments of the message's constructor: dictionaries for messages, lists for repeated fields.
The readers of a message type are made once. Fields are named as in the contract or in lowerCamelCase. Unknown fields
are refused: half of a request is not carried out.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.transcoding.duplicates import members_of
from gateway.transcoding.problems import Later, Problems, TooManyEvents
from gateway.transcoding.times import parse_duration, parse_timestamp

MAX_SHOWN = 100  # characters of a name or value that a description quotes
MAX_ENTRIES = 10_000  # of a map; protobuf takes seconds to read 300,000
MAX_ELEMENTS = 10_000  # of a list without events; no method accepts more than 1,000
MAX_VOIDED = 1_000  # events of a request that voids usage; the server has the same limit
# Lists of events, and how many they may have; None: as many as a batch of usage.
_EVENTS = {"tidemark.v1.UsageBatch.events": None, "tidemark.v1.VoidUsageEventsRequest.events": MAX_VOIDED}
_INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_CAMEL = re.compile(r"[A-Z]")


# Reads a value at a path; the result is an argument for the constructor.
Read = Callable[[Any, str, Problems], Any]


def read_message(descriptor: Descriptor, value: Any, path: str, problems: Problems) -> Any:
    """The arguments of a message's constructor, of a JSON value."""
    return reader_of(descriptor)(value, path, problems)


@cache
def reader_of(message: Descriptor) -> Read:
    """The reader of a message type."""
    known = _KNOWN.get(message.full_name)
    if known is not None:
        return known
    if message.full_name.startswith("google.protobuf."):
        return _by_protobuf(message)
    return _MessageReader(message)


class _MessageReader:
    """Reads messages of one type."""

    def __init__(self, message: Descriptor) -> None:
        self._message = message
        self._fields: dict[str, tuple[str, Read]] | None = (
            None  # by each of its names; made when they are first needed
        )
        self._oneofs: dict[str, str] = {}

    def __call__(self, value: Any, path: str, problems: Problems) -> dict[str, Any] | None:
        if type(value) is not dict:
            problems.add(path, f"it is {_kind(value)}; write an object")
            return None
        fields = self._fields if self._fields is not None else self._make()
        oneofs = self._oneofs
        chosen: dict[str, str] = {}
        found: dict[str, Any] = {}
        prefix = f"{path}." if path else ""
        problems.members += len(value)
        if problems.has_too_many(len(value), path):
            return None
        for key, stated in value.items():
            known = fields.get(key)
            if known is None:
                if problems.is_full:
                    return None
                problems.add(f"{prefix}{key[:MAX_SHOWN]}", "there is no such field")
                continue
            if stated is None:  # as if it were not there
                continue
            name, read = known
            if name in found:
                problems.add(f"{prefix}{name}", "it is set twice, under both of its names")
                continue
            if oneofs and (oneof := oneofs.get(name)) is not None:
                if oneof in chosen:
                    problems.add(f"{prefix}{name}", f"{chosen[oneof]} is set, too; set one of them")
                    continue
                chosen[oneof] = name
            found[name] = read(stated, f"{prefix}{name}", problems)
        return found

    def _make(self) -> dict[str, tuple[str, Read]]:
        fields = {}
        for field in self._message.fields:
            fields[field.name] = fields[field.json_name] = (field.name, field_reader(field))
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                self._oneofs[field.name] = oneof.name
        self._fields = fields
        return fields


@cache
def field_reader(field: FieldDescriptor) -> Read:
    """The reader of a field, which may be repeated or a map."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return _map(message)
    single = single_reader(field)
    if field.full_name in _EVENTS:
        return _events(single, _EVENTS[field.full_name])
    return _repeated(single) if field.is_repeated else single


def _events(single: Read, most: int | None) -> Read:
    """The reader of a list of events. The server has a reason of its own for one that is too long."""

    listed = _repeated(single)

    def read(value: Any, path: str, problems: Problems) -> Any:
        limit = problems.most_events if most is None else most
        if type(value) is list and len(value) > limit:  # before any work on one of them
            problems.too_many_events = TooManyEvents(path, len(value), limit)
            return None
        if type(value) is list and problems.reads_later:
            problems.later = Later(path, value, single)
            return []
        return listed(value, path, problems)

    return read


def _repeated(single: Read) -> Read:
    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not list:
            problems.add(path, f"it is {_kind(value)}; write a list")
            return None
        if len(value) > MAX_ELEMENTS:  # before any work on one of them: a body has space for a million
            problems.add(path, f"it has {len(value)} elements; write at most {MAX_ELEMENTS}")
            return None
        if problems.has_too_many(len(value), path):
            return None
        found = []
        for index, each in enumerate(value):
            if problems.is_full:  # no more of them would be shown
                return None
            if each is None:
                problems.add(f"{path}[{index}]", "null is no element")
            else:
                found.append(single(each, f"{path}[{index}]", problems))
        return found

    return read


def _map(entry: Descriptor) -> Read:
    key_field = entry.fields_by_name["key"]
    read_key = text_reader(key_field)
    read_value = single_reader(entry.fields_by_name["value"])
    plain = key_field.type == FieldDescriptor.TYPE_STRING

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not dict:
            problems.add(path, f"it is {_kind(value)}; write an object")
            return None
        if len(value) > MAX_ENTRIES:
            problems.add(path, f"it has {len(value)} entries; write at most {MAX_ENTRIES}")
            return None
        problems.members += len(value)
        if problems.has_too_many(len(value), path):
            return None
        found = {}
        for key, each in value.items():
            at = f"{path}[{key[:MAX_SHOWN]!r}]"
            if each is None:
                problems.add(at, "null is no value")
                continue
            found[key if plain else read_key(key, at, problems)] = read_value(each, at, problems)
        return found

    return read


@cache
def single_reader(field: FieldDescriptor) -> Read:
    """The reader of one value of a field."""
    if field.message_type is not None:
        return reader_of(field.message_type)
    if field.enum_type is not None:
        return _enum(field.enum_type)
    return _SCALARS[field.type]


@cache
def text_reader(field: FieldDescriptor) -> Read:
    """The reader of one value of a field that is written as a text, in a path or in a query."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool_text
    if field.enum_type is not None:
        return _enum_text(field.enum_type)
    return single_reader(field)


def _string(value: Any, path: str, problems: Problems) -> Any:
    if type(value) is not str:
        problems.add(path, f"it is {_kind(value)}; write a text, in quotes")
        return ""
    return value


def _bool(value: Any, path: str, problems: Problems) -> Any:
    if type(value) is not bool:
        problems.add(path, f"it is {_kind(value)}; write true or false")
        return False
    return value


def _bool_text(value: Any, path: str, problems: Problems) -> Any:
    if value not in ("true", "false"):
        problems.add(path, "write true or false")
    return value == "true"


def _integer(low: int, high: int) -> Read:
    def read(value: Any, path: str, problems: Problems) -> Any:
        number: int | None = None
        if type(value) is int:
            number = value
        elif (type(value) is str and _INTEGER.fullmatch(value)) or (
            type(value) is float and value.is_integer() and abs(value) < 2**53
        ):
            number = int(value)
        if number is None:
            problems.add(path, "write a whole number")
            return 0
        if not low <= number <= high:
            problems.add(path, f"it is out of range: {low} to {high}")
            return 0
        return number

    return read


def _number(value: Any, path: str, problems: Problems) -> Any:
    if type(value) in (int, float):
        return value
    if type(value) is str and (_NUMBER.fullmatch(value) or value in ("NaN", "Infinity", "-Infinity")):
        return float(value)
    problems.add(path, "write a number")
    return 0


def _bytes(value: Any, path: str, problems: Problems) -> Any:
    if type(value) is str:
        try:
            text = value.replace("-", "+").replace("_", "/").rstrip("=")
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (Base64Error, ValueError):
            pass
    problems.add(path, "write bytes in base64")
    return b""


def _enum(enum: EnumDescriptor) -> Read:
    by_name = {value.name: value.number for value in enum.values}
    numbers = set(by_name.values())

    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is str and value in by_name:
            return by_name[value]
        if type(value) is int and value in numbers:
            return value
        shown = repr(value[:MAX_SHOWN]) if type(value) is str else _kind(value)
        problems.add(path, f"{shown} is no value of {enum.name}: write {' or '.join(list(by_name)[:4])}, …")
        return 0

    return read


def _enum_text(enum: EnumDescriptor) -> Read:
    read_value = _enum(enum)

    def read(value: Any, path: str, problems: Problems) -> Any:
        return read_value(int(value) if _INTEGER.fullmatch(value) else value, path, problems)

    return read


def _parsed(parse: Callable[[str], tuple[int, int]]) -> Read:
    def read(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not str:
            problems.add(path, f"it is {_kind(value)}; write a text, in quotes")
            return None
        try:
            seconds, nanos = parse(value)
        except ValueError as error:
            problems.add(path, str(error))
            return None
        return {"seconds": seconds, "nanos": nanos}

    return read


def _mask(value: Any, path: str, problems: Problems) -> Any:
    """A field mask: paths with commas between them, each in the names of JSON or of the contract."""
    if type(value) is not str:
        problems.add(path, f"it is {_kind(value)}; write paths with commas between them, in quotes")
        return None
    paths = [_CAMEL.sub(lambda found: f"_{found[0].lower()}", one.strip()) for one in value.split(",")]
    return {"paths": [one for one in paths if one]}


def _by_protobuf(message: Descriptor) -> Read:
    made = GetMessageClass(message)

    def read(value: Any, path: str, problems: Problems) -> Message | None:
        problems.members += members_of(value)
        try:
            return ParseDict(value, made())
        except ParseError as error:
            problems.add(path, str(error)[:MAX_SHOWN])
            return None

    return read


def _kind(value: Any) -> str:
    names = {bool: "true or false", dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return names.get(type(value), "a number")


_I32, _I64 = _integer(-(2**31), 2**31 - 1), _integer(-(2**63), 2**63 - 1)
_U32, _U64 = _integer(0, 2**32 - 1), _integer(0, 2**64 - 1)
_SCALARS: dict[int, Read] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_DOUBLE: _number,
    FieldDescriptor.TYPE_FLOAT: _number,
    FieldDescriptor.TYPE_INT32: _I32,
    FieldDescriptor.TYPE_SINT32: _I32,
    FieldDescriptor.TYPE_SFIXED32: _I32,
    FieldDescriptor.TYPE_UINT32: _U32,
    FieldDescriptor.TYPE_FIXED32: _U32,
    FieldDescriptor.TYPE_INT64: _I64,
    FieldDescriptor.TYPE_SINT64: _I64,
    FieldDescriptor.TYPE_SFIXED64: _I64,
    FieldDescriptor.TYPE_UINT64: _U64,
    FieldDescriptor.TYPE_FIXED64: _U64,
}
_KNOWN: dict[str, Read] = {
    "google.protobuf.Timestamp": _parsed(parse_timestamp),
    "google.protobuf.Duration": _parsed(parse_duration),
    "google.protobuf.FieldMask": _mask,
}
