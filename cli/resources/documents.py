"""YAML and JSON as messages of the contract, and back. A mistake names its line and its path.

A number keeps its digits: `value: 0.10` of a file is the text 0.10 of the field, and never a float. Names are those
of the contract, as in the documentation, or those of JSON (`alertId`); values of enums may be short (`critical`).
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from cli.resources.contract import DURATION, TIMESTAMP, behaviors, is_map, message_type
from cli.resources.values import BadValue, value_of
from cli.yaml_text import yaml_module

_LEAVES = (TIMESTAMP, DURATION)
_NULLS = ("", "~", "null", "Null", "NULL")
MAX_NODES = 2_000_000  # of one document, each alias as often as it stands


class BadDocument(ValueError):
    """A document cannot be read; the message says where, and what is expected."""


@dataclass(frozen=True)
class Node:
    """A value of a document. content: a text, a list of nodes, or pairs of a name and a node. line: from 1.

    plain: of a text, that it is not quoted.
    """

    content: str | list["Node"] | list[tuple[str, "Node"]]
    kind: str  # text, list or mapping
    line: int
    plain: bool = False

    @property
    def is_null(self) -> bool:
        """Whether nothing is written here."""
        return self.kind == "text" and self.plain and self.content in _NULLS

    @property
    def text(self) -> str:
        """The text of a text."""
        return str(self.content)

    @property
    def items(self) -> list["Node"]:
        """The items of a list."""
        return [one for one in self.content if isinstance(one, Node)] if self.kind == "list" else []

    @property
    def pairs(self) -> list[tuple[str, "Node"]]:
        """The pairs of a mapping."""
        return [one for one in self.content if isinstance(one, tuple)] if self.kind == "mapping" else []


def nodes_of(text: str) -> Iterator[Node]:
    """The documents of a YAML or JSON text, without empty ones. Raises BadDocument."""
    yaml = yaml_module()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for root in yaml.compose_all(text, loader):
            if root is not None:
                node = _Reader(yaml).node(root, frozenset())
                if not node.is_null:
                    yield node
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise BadDocument(f"{where}{getattr(error, 'problem', None) or str(error).splitlines()[0]}") from None
    except RecursionError:
        raise BadDocument("it is nested too deeply") from None


class _Reader:
    """Turns the nodes of PyYAML into ours. An alias is read as often as it stands, up to a limit."""

    def __init__(self, yaml: Any) -> None:
        self._yaml = yaml
        self._count = 0

    def node(self, raw: Any, above: frozenset[int]) -> Node:
        """The node. above: the ids of the nodes that contain it. Raises BadDocument."""
        line = raw.start_mark.line + 1
        self._count += 1
        if self._count > MAX_NODES:
            raise BadDocument(f"line {line}: it has more than {MAX_NODES:,} values")
        if isinstance(raw, self._yaml.ScalarNode):
            return Node(raw.value, "text", line, not raw.style)
        if id(raw) in above:
            raise BadDocument(f"line {line}: an anchor contains itself")
        inner = above | {id(raw)}
        if isinstance(raw, self._yaml.SequenceNode):
            return Node([self.node(one, inner) for one in raw.value], "list", line)
        pairs: dict[str, Node] = {}
        for key, value in raw.value:
            if not isinstance(key, self._yaml.ScalarNode):
                raise BadDocument(f"line {key.start_mark.line + 1}: a name is a text")
            if key.value in pairs:
                raise BadDocument(f"line {key.start_mark.line + 1}: {key.value} is given twice")
            pairs[key.value] = self.node(value, inner)
        return Node(list(pairs.items()), "mapping", line)


def fill(message: Any, node: Node, path: str = "") -> None:
    """Puts the fields of a mapping into a message. Raises BadDocument."""
    if node.kind != "mapping":
        raise BadDocument(_at(node, path, f"write the fields of {message.DESCRIPTOR.name}, each as NAME: VALUE"))
    names = {field.json_name: field for field in message.DESCRIPTOR.fields}
    names |= {field.name: field for field in message.DESCRIPTOR.fields}
    for name, value in node.pairs:
        field = names.get(name)
        if field is None:
            raise BadDocument(_at(value, _below(path, name), unknown(name, message.DESCRIPTOR)))
        if not value.is_null:
            _fill_field(message, field, value, _below(path, field.name))


def unknown(name: str, descriptor: Descriptor) -> str:
    """What to say about a name that is no field."""
    known = [field.name for field in descriptor.fields]
    close = difflib.get_close_matches(name, known, 1)
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    hint = f"; did you mean {close[0]}?" if close else f"; it has {shown}" if known else ""
    return f"{descriptor.name} has no such field{hint}"


def _fill_field(message: Any, field: FieldDescriptor, node: Node, path: str) -> None:
    if is_map(field):
        if node.kind != "mapping":
            raise BadDocument(_at(node, path, "write pairs, each as KEY: VALUE"))
        value_field = message_type(field).fields_by_name["value"]
        for key, value in node.pairs:
            getattr(message, field.name)[key] = _value(value_field, value, _below(path, key))
    elif field.is_repeated:
        if node.kind != "list":
            raise BadDocument(_at(node, path, "write a list: [A, B], or items that begin with a dash"))
        target = getattr(message, field.name)
        for number, item in enumerate(node.items):
            inner = f"{path}[{number}]"
            if _is_message(field):
                fill(target.add(), item, inner)
            else:
                target.append(_value(field, item, inner))
    elif _is_message(field):
        inner_message = getattr(message, field.name)
        inner_message.SetInParent()
        fill(inner_message, node, path)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(_value(field, node, path))
    else:
        setattr(message, field.name, _value(field, node, path))


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name not in _LEAVES


def _value(field: FieldDescriptor, node: Node, path: str) -> Any:
    if node.kind != "text":
        raise BadDocument(_at(node, path, "write one value"))
    try:
        return value_of(field, node.text)
    except BadValue as error:
        raise BadDocument(_at(node, path, str(error))) from None


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(node: Node, path: str, what: str) -> str:
    return f"line {node.line}: {path}: {what}" if path else f"line {node.line}: {what}"


def is_pair(descriptor: Descriptor) -> bool:
    """Whether a message is a key with a value, such as a group, which options write as KEY=VALUE."""
    return not descriptor.GetOptions().map_entry and [field.name for field in descriptor.fields] == ["key", "value"]


def read_short(text: str, message: Any) -> None:
    """Fills a message from the value of an option: `value=100,severity=info`, or `{value: 100, severity: info}`.

    Raises BadValue.
    """
    if text.lstrip().startswith("{"):
        try:
            for node in nodes_of(text):
                fill(message, node)
        except BadDocument as error:
            raise BadValue(str(error).removeprefix("line 1: ")) from None
        return
    if is_pair(message.DESCRIPTOR) and not text.startswith("key="):
        message.key, _, message.value = text.partition("=")
        return
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        *outer, last = name.strip().split(".")
        target = message
        for step in outer:
            if step not in target.DESCRIPTOR.fields_by_name or not _is_message(
                target.DESCRIPTOR.fields_by_name[step]
            ):
                raise BadValue(unknown(step, target.DESCRIPTOR))
            target = getattr(target, step)
        field = target.DESCRIPTOR.fields_by_name.get(last)
        if field is None:
            raise BadValue(f"{last!r}: {unknown(last, target.DESCRIPTOR)}")
        if not equals or is_map(field) or _is_message(field):
            raise BadValue(f"{pair!r}: write FIELD=VALUE,…, or {{FIELD: VALUE, …}} for what has parts")
        if field.is_repeated:
            getattr(target, last).append(value_of(field, value))
        elif field.message_type is not None:
            getattr(target, last).CopyFrom(value_of(field, value))
        else:
            setattr(target, last, value_of(field, value))


def tree_of(message: Message, *, json_names: bool) -> dict[str, Any]:
    """A message as lists and mappings of texts, in proto JSON; with the names of JSON or of the contract."""
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=not json_names)
    return found


def strip(message: Any, keep: Sequence[str] = ()) -> None:
    """Clears what only the server sets, except the fields `keep` of the message itself."""
    for field, value in message.ListFields():
        if "OUTPUT_ONLY" in behaviors(field) and field.name not in keep:
            message.ClearField(field.name)
        elif _is_message(field) and not is_map(field):
            for one in value if field.is_repeated else (value,):
                strip(one)
