"""The cells of tables: fields of messages as short texts, and their colours."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from cli.console import bad, good, quiet, warn
from cli.resources.contract import DURATION, TIMESTAMP, enum_prefix, enum_type, is_map
from cli.resources.tables.model import Column, Form
from cli.resources.tables.texts import duration

Style = Callable[[str], str]

_GOOD = {"active", "enabled", "delivered", "done", "allowed", "ok", "paid", "alert.resolved", "resolved", "issued"}
_BAD = {
    *("failed", "denied", "in-alarm", "gone", "server-error", "rejected", "critical", "connection-failed"),
    *("response-timed-out", "alert.reached", "endpoint.failing", "endpoint.disabled", "delivery.exhausted"),
}
_WARN = {
    *("pending", "disabled", "evaluating", "running", "open", "requested", "expired", "capped", "warning"),
    "cancelled",
}
_QUIET = {"archived", "voided", "void", "none", "released", "settled", "ended", "not-evaluated"}
_SPANS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_EVENT_TYPES = "EventType"


@dataclass(frozen=True)
class Times:
    """How times are written: relative to `now` for people, or as they are, in UTC, where now is None."""

    now: datetime | None = None

    def shown(self, time: datetime) -> str:
        """`3m ago`, `in 5d`; otherwise `2026-03-15 12:00:00Z`."""
        if self.now is None:
            return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        seconds = round((time - self.now).total_seconds())
        if abs(seconds) < 1:
            return "now"
        size, name = next(span for span in _SPANS if abs(seconds) >= span[0])
        number = f"{abs(seconds) // size}{name}"
        return f"in {number}" if seconds > 0 else f"{number} ago"


def cell(message: Any, column: Column, times: Times) -> str:
    """The text of a cell, without line breaks."""
    found = column.value(message) if callable(column.value) else _of_path(message, column.value, times)
    return one_line(found)


def one_line(text: str) -> str:
    """The text with escapes in place of what is not printable."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _of_path(message: Any, path: str, times: Times) -> str:
    *outer, last = path.split(".")
    try:
        target = reduce(getattr, outer, message)
    except AttributeError:
        return ""
    return text_of(target, target.DESCRIPTOR.fields_by_name[last], times)


def text_of(message: Any, field: FieldDescriptor, times: Times) -> str:
    """The value of a field as a short text; empty if it is unset."""
    value = getattr(message, field.name)
    if is_map(field):
        return ",".join(f"{key}={value[key]}" for key in sorted(value))
    if field.is_repeated:
        return ",".join(single(field, each, times) for each in value)
    if field.has_presence and not message.HasField(field.name):
        return ""
    return single(field, value, times)


def single(field: FieldDescriptor, value: Any, times: Times) -> str:
    """One value as a text."""
    if field.message_type is not None:
        if field.message_type.full_name == TIMESTAMP:
            return times.shown(value.ToDatetime(tzinfo=UTC))
        if field.message_type.full_name == DURATION:
            return duration(value)
        return ",".join(f"{inner.name}={_nested(inner, one, times)}" for inner, one in value.ListFields())
    if field.enum_type is not None:
        return enum_text(field, value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "yes" if value else ""
    return str(value)


def _nested(field: FieldDescriptor, value: Any, times: Times) -> str:
    if is_map(field):
        return "{" + ",".join(f"{key}={value[key]}" for key in sorted(value)) + "}"
    if field.is_repeated:
        return "[" + ",".join(single(field, each, times) for each in value) + "]"
    text = single(field, value, times)
    return f"({text})" if field.message_type is not None and "=" in text else text


def enum_text(field: FieldDescriptor, number: int) -> str:
    """The short name of a value: `in-alarm`; of an event type `alert.reached`. A number that this version lacks."""
    enum = enum_type(field)
    known = enum.values_by_number.get(number)
    if known is None:
        return str(number)
    if not number:
        return ""
    name = known.name.removeprefix(enum_prefix(field)).lower()
    if enum.name == _EVENT_TYPES:
        return event_type_text(name)
    return str(name.replace("_", "-"))


def event_type_text(name: str) -> str:
    """`alert.reached` for alert_reached: the first word is the subject, and the rest is what happened."""
    subject, _, happened = name.partition("_")
    return f"{subject}.{happened}"


def style_of(column: Column, text: str) -> Style:
    """The colour of a cell."""
    if column.form is Form.STATE:
        for words, style in ((_GOOD, good), (_BAD, bad), (_WARN, warn), (_QUIET, quiet)):
            if text in words:
                return style
    if column.form is Form.TIME:
        return quiet
    return str
