"""The fields of a form, made from the descriptor of a message and its present content.

Names of inputs are paths: `thresholds.0.value`. A oneof is a choice of its cases, of which only the chosen one has
inputs. So a new field or a new case of the contract is in the form without a line of code.
"""

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor

from console.words.names import enum_words, words_of

_OUTPUT_ONLY, _REQUIRED = field_behavior_pb2.FieldBehavior.OUTPUT_ONLY, field_behavior_pb2.FieldBehavior.REQUIRED
# What people think of first; all other fields follow in the order of the contract.
_FIRST = (
    "display_name",
    "scope",
    "condition",
    "value",
    "recurring_step",
    "percent_of_limit",
    "resolve_value",
    "thresholds",
)
_RANK = {name: number for number, name in enumerate(_FIRST)}
# The words of names that are no words of everyday language.
_LABELS = {"Notify on": "Notify when", "Metric id": "Metric", "Plan id": "Plan", "Customer id": "Customer"}


@dataclass(frozen=True)
class Input:
    """One field of a form.

    kind: text, lines (one value a line), pairs (key=value a line), choice, choices (several), check, number, group
    (a message), list (of messages) or cases (a oneof). name: of the input. options: value and words of each.
    children: of a group, or of the chosen case. items: the children of each element of a list. has_switch: whether
    the field can be unset although its text is empty; is_set: whether it is set.
    """

    kind: str
    name: str
    label: str
    value: Any = ""
    required: bool = False
    help: str = ""
    options: list[tuple[str, str]] = field(default_factory=list)
    children: list["Input"] = field(default_factory=list)
    items: list[list["Input"]] = field(default_factory=list)
    has_switch: bool = False
    is_set: bool = False

    @property
    def id(self) -> str:
        """The id of the input on its page."""
        return f"f-{self.name.replace('.', '-')}"


def inputs(message: Any, prefix: str = "", only: Container[str] | None = None) -> list[Input]:
    """The inputs of a message, in the order of its descriptor. only: the names of the fields to show; None: all."""
    found: list[Input] = []
    shown: set[str] = set()
    for descriptor in message.DESCRIPTOR.fields:
        oneof = descriptor.containing_oneof
        if is_output(descriptor) or (only is not None and _name(descriptor) not in only):
            continue
        if _is_case(descriptor):
            assert oneof is not None, "a case belongs to one"
            if oneof.name not in shown:
                shown.add(oneof.name)
                found.append(_cases(message, oneof, prefix))
            continue
        found.append(_input(message, descriptor, prefix))
    return sorted(found, key=lambda one: _RANK.get(one.name.rpartition(".")[2], len(_RANK)))


@cache
def _behaviour(descriptor: FieldDescriptor) -> Any:
    extensions: Any = descriptor.GetOptions().Extensions
    return extensions[field_behavior_pb2.field_behavior]


@cache
def is_output(descriptor: FieldDescriptor) -> bool:
    """Whether only answers have the field."""
    return _OUTPUT_ONLY in _behaviour(descriptor)


def _is_case(descriptor: FieldDescriptor) -> bool:
    """Whether the field is a case of a oneof that the contract writes; `optional` makes one of its own."""
    oneof = descriptor.containing_oneof
    return oneof is not None and not (len(oneof.fields) == 1 and oneof.name == f"_{descriptor.name}")


def _name(descriptor: FieldDescriptor) -> str:
    """The name of a field, or of the oneof of which it is a case."""
    if _is_case(descriptor):
        assert descriptor.containing_oneof is not None
        return str(descriptor.containing_oneof.name)
    return str(descriptor.name)


def _cases(message: Any, oneof: OneofDescriptor, prefix: str) -> Input:
    chosen = message.WhichOneof(oneof.name) or ""
    children: list[Input] = []
    if chosen:
        case = oneof.containing_type.fields_by_name[chosen]
        if case.message_type is not None:
            children = inputs(getattr(message, chosen), f"{prefix}{chosen}.")
        else:
            children = [_input(message, case, prefix)]
    return Input(
        "cases",
        f"{prefix}{oneof.name}",
        words_of(oneof.name),
        chosen,
        required=not prefix,
        help=text_of(f"{oneof.containing_type.full_name}.{oneof.name}"),
        options=[(one.name, words_of(one.name)) for one in oneof.fields],
        children=children,
    )


def _input(message: Any, descriptor: FieldDescriptor, prefix: str) -> Input:
    name, value = f"{prefix}{descriptor.name}", getattr(message, descriptor.name)
    label = words_of(descriptor.name)
    common: Mapping[str, Any] = {
        "label": _LABELS.get(label, label),
        "required": _REQUIRED in _behaviour(descriptor),
        "help": text_of(descriptor.full_name),
    }
    if is_map(descriptor):
        return Input("pairs", name, value="\n".join(f"{key}={value[key]}" for key in sorted(value)), **common)
    if descriptor.message_type is not None:
        if descriptor.is_repeated:
            items = [inputs(one, f"{name}.{index}.") for index, one in enumerate(value)]
            return Input("list", name, items=items, **common)
        children = inputs(value, f"{name}.")
        if len(children) == 1 and children[0].kind == "cases":  # a message that only holds a oneof
            return replace(children[0], label=common["label"], required=common["required"])
        return Input("group", name, children=children, **common)
    if descriptor.enum_type is not None:
        options = [
            (str(one.number), enum_words(descriptor.enum_type, one.number))
            for one in descriptor.enum_type.values
            if one.number
        ]
        if descriptor.is_repeated:
            return Input("choices", name, value={str(one) for one in value}, options=options, **common)
        return Input("choice", name, value=str(value or ""), options=options, **common)
    if descriptor.is_repeated:
        return Input("lines", name, value="\n".join(str(one) for one in value), **common)
    if descriptor.type == FieldDescriptor.TYPE_BOOL:
        return Input("check", name, value=bool(value), **common)
    if descriptor.type != FieldDescriptor.TYPE_STRING:
        return Input("number", name, value=value or "", **common)
    has_switch = descriptor.has_presence
    return Input(
        "text",
        name,
        value=value,
        has_switch=has_switch,
        is_set=has_switch and message.HasField(descriptor.name),
        **common,
    )


@cache
def is_map(descriptor: FieldDescriptor) -> bool:
    """Whether the field is a map."""
    entry: Descriptor | None = descriptor.message_type
    return entry is not None and entry.GetOptions().map_entry


@cache
def _texts() -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads((Path(__file__).parent / "help.json").read_text())
    return found


def text_of(full_name: str) -> str:
    """What the contract says of a field, an oneof or a message."""
    return _texts().get(full_name, "")


def item_count(message: Any) -> int:
    """How many elements the lists of messages have together: what makes a form large."""
    count = 0
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or is_map(descriptor):
            continue
        items = value if descriptor.is_repeated else (value,)
        count += len(items) * descriptor.is_repeated + sum(map(item_count, items))
    return count


Visitor = Callable[[Input], None]


def visit(every: list[Input], visitor: Visitor) -> None:
    """Calls `visitor` with each input, those within others included."""
    for one in every:
        visitor(one)
        visit(one.children, visitor)
        for item in one.items:
            visit(item, visitor)
