"""Texts of the command line and of files as values of fields: times, durations, enums, numbers."""

import difflib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cli.resources.contract import DURATION, TIMESTAMP, enum_names, enum_prefix, is_number
from runtime.clock import SystemClock

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}  # milliseconds
_PART = re.compile(r"(\d+)(ms|[smhdw])")
_DURATION = re.compile(r"(\d+(ms|[smhdw]))+")
_SECONDS = re.compile(r"\d+(\.\d{1,9})?s?")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


class BadValue(ValueError):
    """A text is no value of its field; the message says how to write one."""


def value_of(field: FieldDescriptor, text: str) -> Any:
    """The value of a single item of a field. Raises BadValue."""
    if field.message_type is not None:
        if field.message_type.full_name == TIMESTAMP:
            return timestamp_of(text)
        if field.message_type.full_name == DURATION:
            return duration_of(text)
        raise BadValue(f"{field.name} is a message: write its fields")
    if field.enum_type is not None:
        return enum_of(field, text)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return bool_of(text)
    if is_number(field):
        return whole_number_of(field, text)
    return text


def bool_of(text: str) -> bool:
    """True or false. Raises BadValue."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise BadValue(f"{text!r} is neither true nor false")


def whole_number_of(field: FieldDescriptor, text: str) -> int:
    """A whole number in the range of the field. Raises BadValue."""
    if not re.fullmatch(r"[+-]?\d{1,20}", text):
        raise BadValue(f"{text!r} is no whole number")
    number = int(text)
    bits = 64 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else 32
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise BadValue(f"{text} is too large")
    return number


def enum_of(field: FieldDescriptor, text: str) -> int:
    """A value of an enum by its full or its short name: SEVERITY_CRITICAL, critical, alert.reached."""
    names = enum_names(field)
    plain = re.sub(r"[ ._]", "-", text.removeprefix(enum_prefix(field)).lower())
    if plain in names:
        return names[plain]
    close = difflib.get_close_matches(plain, names, 1)
    hint = f"; did you mean {close[0]}?" if close else f"; write one of {', '.join(names)}"
    raise BadValue(f"{text!r} is no value of {field.name}{hint}")


def timestamp_of(text: str) -> Timestamp:
    """A time: RFC 3339 (without a zone: UTC), a date, `now`, or a duration before or after now: -24h, +30d."""
    made = Timestamp()
    now = SystemClock().now()
    if text == "now":
        made.FromDatetime(now)
        return made
    if text[:1] in "+-" and _DURATION.fullmatch(text[1:]):
        length = _length(text[1:])
        try:
            made.FromDatetime(now + length if text[0] == "+" else now - length)
        except (OverflowError, ValueError):
            raise BadValue(f"{text!r} is too far away") from None
        return made
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadValue(
            f"{text!r} is not a time: write 2026-03-15T12:00:00Z, a date, now, or -24h for 24 hours ago"
        ) from None
    made.FromDatetime(time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
    return made


def duration_of(text: str) -> Duration:
    """A duration: 90s, 15m, 1h30m, 7d, or seconds as `1.5s`. Raises BadValue."""
    made = Duration()
    if _DURATION.fullmatch(text):
        made.FromTimedelta(_length(text))
    elif _SECONDS.fullmatch(text):
        made.FromJsonString(text if text.endswith("s") else f"{text}s")
    else:
        raise BadValue(f"{text!r} is not a duration: write 90s, 15m, 1h30m or 7d")
    return made


def _length(text: str) -> timedelta:
    try:
        return sum((timedelta(milliseconds=int(n) * _UNITS[unit]) for n, unit in _PART.findall(text)), timedelta())
    except OverflowError:
        raise BadValue(f"{text!r} is too long") from None
