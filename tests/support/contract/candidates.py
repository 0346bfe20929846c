"""Good and bad requests that are made from a good one: each differs from it in one field."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from generated.buf.validate import validate_pb2
from proto.documents.contract import behaviors, is_map

IDS = ("", "a", "\u00a0a", "a\u2028", " a", "a b", "a\u0000b", "a\u009f", "a:b", "usd", "us.", "USD")
DECIMALS = (
    *("", "a", "1", "-1", "00", "1.", ".5", "+1", "1e3", "0.001", "1." + "1" * 18, "1." + "1" * 19),
    *("1" * 38, "1" * 39, "1" * 21 + ".5", "10000.01", "1.230", "0.00"),
)
# Of a value of a map or a list, which may have several of them.
FEW_TEXTS = ("", "a", "\u00a0a", "a\u0000b", "a b")


@dataclass(frozen=True)
class Candidate:
    """A request with one changed field. field: its path; what: the change, for the name of a failure."""

    field: str
    what: str
    request: Message


def candidates(request: Message) -> Iterator[Candidate]:
    """Every change of every field of the request that a caller may set, and of the messages in it."""
    for path, what, change in _changes(request, ()):
        changed = type(request)()
        changed.CopyFrom(request)
        change(changed)
        yield Candidate(path, what, changed)


_Change = Callable[[Any], None]
_Steps = tuple[str | int, ...]


def _at(message: Any, steps: _Steps) -> Any:
    for step in steps:
        message = message[step] if isinstance(step, int) else getattr(message, step)
    return message


def _change_at(steps: _Steps, change: _Change, root: Any) -> None:
    change(_at(root, steps))


def _changes(message: Any, steps: _Steps) -> Iterator[tuple[str, str, _Change]]:
    for field in message.DESCRIPTOR.fields:
        if behaviors(field) == ["OUTPUT_ONLY"]:
            continue
        path = ".".join(str(step) for step in (*steps, field.name))
        for what, change in _of_field(field):
            yield path, what, partial(_change_at, steps, change)
        if field.message_type is None or field.message_type.file.package != "tidemark.v1" or is_map(field):
            continue
        if field.is_repeated:
            if getattr(message, field.name):
                yield from _changes(getattr(message, field.name)[0], (*steps, field.name, 0))
        elif message.HasField(field.name):
            yield from _changes(getattr(message, field.name), (*steps, field.name))


def rules_of(field: FieldDescriptor) -> Any:
    """The rules of the field itself."""
    options: Any = field.GetOptions()
    return options.Extensions[validate_pb2.field]


def _of_field(field: FieldDescriptor) -> Iterator[tuple[str, _Change]]:
    name, rules = field.name, rules_of(field)
    yield "cleared", lambda owner: owner.ClearField(name)
    if is_map(field):
        for entries in _maps(rules.map):
            yield _shown(entries), partial(_replace_map, name=name, entries=entries)
    elif field.is_repeated:
        for values in _lists(field, rules.repeated):
            yield _shown(values), partial(_replace_list, name=name, values=values)
    else:
        for value in _values(field, rules, DECIMALS if "[0-9]" in rules.string.pattern else IDS):
            yield _shown(value), partial(_set, name=name, value=value)


def _maps(rules: Any) -> Iterator[dict[str, str]]:
    for count in _bounds(rules.max_pairs):
        yield {f"key{number}": "value" for number in range(count)}
    for text in (*_texts(rules.keys), *FEW_TEXTS):
        yield {text: "value"}
    for text in (*_texts(rules.values), *FEW_TEXTS):
        yield {"key": text}


def _lists(field: FieldDescriptor, rules: Any) -> Iterator[list[Any]]:
    if field.type == FieldDescriptor.TYPE_STRING:
        for count in _bounds(rules.max_items):
            yield [f"value{number}" for number in range(count)]
        yield ["value", "value"]
    for value in _values(field, rules.items, FEW_TEXTS):
        yield [value]


def _values(field: FieldDescriptor, rules: Any, texts: Sequence[str]) -> Sequence[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return (*_texts(rules), *texts)
    if field.type == FieldDescriptor.TYPE_INT32:
        return (-1, 0, 1, *_bounds(rules.int32.lte), 2_147_483_647)
    if field.enum_type is not None:
        return (*(value.number for value in field.enum_type.values), 99)
    return ()


def _texts(rules: Any) -> Iterator[str]:
    """The longest text, and one that is longer, in characters of one byte and of two."""
    for length in _bounds(rules.string.max_len):
        yield "x" * length
        yield "é" * length


def _bounds(most: int) -> tuple[int, ...]:
    return (most, most + 1) if most else ()


def _set(owner: Any, *, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _replace_map(owner: Any, *, name: str, entries: dict[str, str]) -> None:
    getattr(owner, name).clear()
    getattr(owner, name).update(entries)


def _replace_list(owner: Any, *, name: str, values: list[Any]) -> None:
    owner.ClearField(name)
    getattr(owner, name).extend(values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:30]}… ({len(text)})"
