"""How two messages of one type differ, in lines for people."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from cli.resources.cells import Times, one_line, single
from cli.resources.contract import DURATION, TIMESTAMP, is_map

Flat = dict[str, str | list[str]]
NONE = "(none)"


def flat(message: Any, path: str = "") -> Flat:
    """The fields that are set, by their paths; the items of a list as texts."""
    found: Flat = {}
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        if is_map(field):
            found |= {f"{name}.{key}": one_line(str(value[key])) for key in value}
        elif field.is_repeated:
            found[name] = [one_line(single(field, each, Times())) for each in value]
        elif _is_message(field):
            found |= flat(value, name) or {name: "{}"}
        else:
            found[name] = one_line(single(field, value, Times()))
    return found


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name not in (TIMESTAMP, DURATION)


def differences(before: Any, after: Any) -> list[str]:
    """A line for each field that differs: `display_name: A → B`, `thresholds: - value=100`."""
    if before == after:
        return []
    old, new = flat(before), flat(after)
    return [line for path in dict.fromkeys((*old, *new)) for line in _lines(path, old.get(path), new.get(path))]


def _lines(path: str, old: str | list[str] | None, new: str | list[str] | None) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, list) or isinstance(new, list):
        before, after = old if isinstance(old, list) else [], new if isinstance(new, list) else []
        removed, added = _without(before, after), _without(after, before)
        yield from (f"{path}: - {item}" for item in removed)
        yield from (f"{path}: + {item}" for item in added)
        if not removed and not added:
            yield f"{path}: another order"
    else:
        yield f"{path}: {old or NONE} → {new or NONE}"


def _without(items: list[str], others: list[str]) -> list[str]:
    left = list(others)
    found = []
    for item in items:
        if item in left:
            left.remove(item)
        else:
            found.append(item)
    return found


def contents(message: Any) -> list[str]:
    """A line for each field that is set."""
    return [
        line
        for path, value in flat(message).items()
        for line in ([f"{path}: {each}" for each in value] if isinstance(value, list) else [f"{path}: {value}"])
    ]
