"""The message that a form has posted: the inverse of `tree`."""

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from console.forms.tree import is_map, is_output

MOST_ITEMS = 1_000  # of one list


Posted = Any  # the fields of a form, a MultiDict: its types have overloads that a protocol cannot repeat


def fill(message: Any, form: Posted, prefix: str = "") -> None:
    """Fills an empty message with what a form says. What is no number counts as unset."""
    for descriptor in message.DESCRIPTOR.fields:
        if is_output(descriptor):
            continue
        oneof = descriptor.containing_oneof
        if oneof is not None and oneof.name != f"_{descriptor.name}":
            if _text(form, f"{prefix}{oneof.name}") != descriptor.name:
                continue
            if descriptor.message_type is not None:
                case = getattr(message, descriptor.name)
                case.SetInParent()
                fill(case, form, f"{prefix}{descriptor.name}.")
                continue
        _fill_field(message, descriptor, form, f"{prefix}{descriptor.name}")


def _fill_field(message: Any, descriptor: FieldDescriptor, form: Posted, name: str) -> None:
    value = getattr(message, descriptor.name)
    if is_map(descriptor):
        for line in _lines(form, name):
            key, _, text = line.partition("=")
            value[key.strip()] = text.strip()
    elif descriptor.message_type is not None and descriptor.is_repeated:
        for index in indexes(form, name):
            fill(value.add(), form, f"{name}.{index}.")
    elif descriptor.message_type is not None:
        if any(key.startswith(f"{name}.") for key in form.keys()):  # noqa: SIM118 – it is no dict
            value.SetInParent()
            fill(value, form, f"{name}.")
    elif descriptor.enum_type is not None and descriptor.is_repeated:
        value.extend(int(one) for one in form.getall(name, []) if str(one).isdecimal())
    elif descriptor.is_repeated:
        value.extend(_lines(form, name))
    elif descriptor.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, descriptor.name, _text(form, name) == "1")
    elif descriptor.type == FieldDescriptor.TYPE_STRING:
        text = _text(form, name)
        if descriptor.has_presence:
            if text or _text(form, f"{name}.set") == "1":
                setattr(message, descriptor.name, text)
        else:
            setattr(message, descriptor.name, text)
    else:
        text = _text(form, name)
        if re.fullmatch(r"-?\d{1,9}", text):
            setattr(message, descriptor.name, int(text))


def indexes(form: Posted, name: str) -> list[int]:
    """The numbers of the elements of a list that the form has, in their order."""
    pattern = re.compile(rf"{re.escape(name)}\.(\d{{1,4}})\.")
    found = {int(match[1]) for key in form.keys() if (match := pattern.match(key))}  # noqa: SIM118
    return sorted(found)[:MOST_ITEMS]


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


def _text(form: Posted, name: str) -> str:
    values = form.getall(name, [])
    return values[-1].strip() if values and isinstance(values[-1], str) else ""


def _lines(form: Posted, name: str) -> list[str]:
    text = "\n".join(one for one in form.getall(name, []) if isinstance(one, str))
    return [line.strip() for line in text.splitlines() if line.strip()]
