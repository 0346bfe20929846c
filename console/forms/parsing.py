"""The message that a form has posted: the inverse of `tree`."""

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from multidict import MultiMapping

from console.forms.tree import is_map, is_output

MOST_ITEMS = 1_000  # of one list
_SIGNED = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_ENUM)
MOST_PARTS = 12  # of the name of an input


class _Posted:
    """The fields of a form, and what its names contain: read once, since a form may have very many."""

    def __init__(self, form: MultiMapping[str]) -> None:
        self._form = form
        self._groups: dict[str, set[int]] = {}  # the numbers that follow each beginning of a name
        for name in form:
            parts = name.split(".", MOST_PARTS)
            for count in range(1, min(len(parts), MOST_PARTS)):
                numbers = self._groups.setdefault(".".join(parts[:count]), set())
                if re.fullmatch("[0-9]{1,4}", parts[count]):
                    numbers.add(int(parts[count]))

    def text(self, name: str) -> str:
        """The last value of a field, without blanks at its ends."""
        values = self.all(name)
        return values[-1].strip() if values else ""

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return self._form.getall(name, [])

    def lines(self, name: str) -> list[str]:
        """The lines of a field that are not blank."""
        return [line.strip() for one in self.all(name) for line in one.splitlines() if line.strip()]

    def has_group(self, name: str) -> bool:
        """Whether there are fields of this message."""
        return name in self._groups

    def indexes(self, name: str) -> list[int]:
        """The numbers of the elements of a list, in their order."""
        return sorted(self._groups.get(name, ()))[:MOST_ITEMS]


def fill(message: Message, form: MultiMapping[str]) -> None:
    """Fills an empty message with what a form says. What is no number counts as unset."""
    _fill(message, _Posted(form), "")


def _fill(message: Any, form: _Posted, prefix: str) -> None:
    for descriptor in message.DESCRIPTOR.fields:
        if is_output(descriptor):
            continue
        oneof = descriptor.containing_oneof
        if oneof is not None and oneof.name != f"_{descriptor.name}":
            if form.text(f"{prefix}{oneof.name}") != descriptor.name:
                continue
            if descriptor.message_type is not None:
                case = getattr(message, descriptor.name)
                case.SetInParent()
                _fill(case, form, f"{prefix}{descriptor.name}.")
                continue
        _fill_field(message, descriptor, form, f"{prefix}{descriptor.name}")


def _fill_field(message: Any, descriptor: FieldDescriptor, form: _Posted, name: str) -> None:
    value = getattr(message, descriptor.name)
    if is_map(descriptor):
        for line in form.lines(name):
            key, _, text = line.partition("=")
            value[key.strip()] = text.strip()
    elif descriptor.message_type is not None and descriptor.is_repeated:
        for index in form.indexes(name):
            _fill(value.add(), form, f"{name}.{index}.")
    elif descriptor.message_type is not None:
        if form.has_group(name):
            value.SetInParent()
            _fill(value, form, f"{name}.")
    elif descriptor.enum_type is not None and descriptor.is_repeated:
        known = descriptor.enum_type.values_by_number
        value.extend(number for number in map(_number, form.all(name)) if number in known)
    elif descriptor.is_repeated:
        value.extend(form.lines(name))
    elif descriptor.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, descriptor.name, form.text(name) == "1")
    elif descriptor.type == FieldDescriptor.TYPE_STRING:
        text = form.text(name)
        if descriptor.has_presence:
            if text or form.text(f"{name}.set") == "1":
                setattr(message, descriptor.name, text)
        else:
            setattr(message, descriptor.name, text)
    else:
        number = _number(form.text(name))
        if number is not None and (number >= 0 or descriptor.type in _SIGNED):
            setattr(message, descriptor.name, number)


def act(message: Any, action: str) -> bool:
    """Adds an element to a list, or removes one: `add:thresholds`, `remove:thresholds.2`. False: another action."""
    verb, _, path = action.partition(":")
    if verb not in ("add", "remove") or not path:
        return False
    *parents, last = path.split(".")
    try:
        if verb == "add":
            getattr(_at(message, parents), last).add()
        else:
            *parents, name = parents
            del getattr(_at(message, parents), name)[int(last)]
    except (AttributeError, IndexError, ValueError, TypeError):
        return True  # of a form that is not what was made; it is shown again as it is
    return True


def _at(message: Any, parts: list[str]) -> Any:
    for part in parts:
        message = message[int(part)] if part.isdecimal() else getattr(message, part)
    return message


def name_of(path: str, root: str) -> str:
    """The name of the input for the path of a violation: `alert.thresholds[0].value` is `thresholds.0.value`."""
    return re.sub(r"\[(\d+)\]", r".\1", path.removeprefix(f"{root}."))


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else None
