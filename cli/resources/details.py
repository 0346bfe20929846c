"""One message for people: a line for each field that is set, with what it contains below it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from cli.console import quiet
from cli.resources.cells import Times, enum_text, one_line, single
from cli.resources.contract import DURATION, TIMESTAMP, is_map

_LEAVES = (TIMESTAMP, DURATION)
INDENT = "  "
MAX_INLINE = 100  # characters of a message that stands in one line
MAX_ITEMS = 200  # of a list; --json shows all


def lines_of(message: Any, now: datetime, *, of_program: bool) -> Iterator[str]:
    """The lines of a message. of_program: without relative times and the local zone."""
    yield from _fields(message, "", now, of_program)


def _fields(message: Any, indent: str, now: datetime, of_program: bool) -> Iterator[str]:
    found = message.ListFields()
    width = max((len(field.name) for field, _ in found), default=0)
    for field, value in found:
        name = f"{indent}{quiet(field.name)}"
        blanks = " " * (width - len(field.name) + 2)
        if is_map(field):
            pairs = [f"{key}={one_line(str(value[key]))}" for key in sorted(value)]
            yield f"{name}{blanks}{', '.join(pairs)}"
        elif field.is_repeated:
            yield from _items(field, value, f"{name}", blanks, indent, now, of_program)
        elif _is_message(field):
            yield from _message(field, value, name, blanks, indent, now, of_program)
        else:
            yield f"{name}{blanks}{_text(field, value, now, of_program)}"


def _items(
    field: FieldDescriptor, values: Any, name: str, blanks: str, indent: str, now: datetime, of_program: bool
) -> Iterator[str]:
    if not _is_message(field):
        yield f"{name}{blanks}{', '.join(_text(field, value, now, of_program) for value in values)}"
        return
    yield name
    for value in values[:MAX_ITEMS]:
        inline = _inline(value, now, of_program)
        if len(inline) <= MAX_INLINE:
            yield f"{indent}{INDENT}- {inline}"
            continue
        first = True
        for line in _fields(value, indent + INDENT + INDENT, now, of_program):
            yield f"{indent}{INDENT}- {line[len(indent + INDENT + INDENT) :]}" if first else line
            first = False
    if len(values) > MAX_ITEMS:
        yield f"{indent}{INDENT}… and {len(values) - MAX_ITEMS:,} more: --json shows all"


def _message(
    field: FieldDescriptor, value: Any, name: str, blanks: str, indent: str, now: datetime, of_program: bool
) -> Iterator[str]:
    if not value.ListFields():
        yield f"{name}{blanks}yes"
        return
    inline = _inline(value, now, of_program)
    if len(inline) <= MAX_INLINE:
        yield f"{name}{blanks}{inline}"
        return
    yield name
    yield from _fields(value, indent + INDENT, now, of_program)


def _inline(message: Any, now: datetime, of_program: bool) -> str:
    """A message in one line: `value 100, severity critical`."""
    parts = []
    for field, value in message.ListFields():
        if is_map(field):
            text = ",".join(f"{key}={one_line(str(value[key]))}" for key in sorted(value))
        elif field.is_repeated:
            text = " ".join(
                f"({_inline(one, now, of_program)})" if _is_message(field) else _text(field, one, now, of_program)
                for one in value
            )
        elif _is_message(field):
            text = f"({_inline(value, now, of_program)})" if value.ListFields() else ""
        else:
            text = _text(field, value, now, of_program)
        parts.append(f"{quiet(field.name)} {text}".rstrip())
    return ", ".join(parts)


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name not in _LEAVES


def _text(field: FieldDescriptor, value: Any, now: datetime, of_program: bool) -> str:
    if field.message_type is not None and field.message_type.full_name == TIMESTAMP:
        time = value.ToDatetime(tzinfo=UTC)
        if of_program:
            return Times().shown(time)
        local = time.astimezone()
        return f"{local:%Y-%m-%d %H:%M:%S %Z} {quiet(f'({Times(now).shown(time)})')}"
    if field.enum_type is not None:
        return enum_text(field, value) or "unspecified"
    return one_line(single(field, value, Times()))
