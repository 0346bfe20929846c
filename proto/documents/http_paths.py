"""Path templates of google.api.http: their variables, and which fields of a request stand where."""

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from proto.documents.contract import Binding, is_map

_VARIABLE = re.compile(r"\{([a-z_.]+)\}")


def variables(path: str) -> list[str]:
    """The field paths in a template."""
    return _VARIABLE.findall(path)


def field_at(message: Descriptor, path: str) -> FieldDescriptor | None:
    """The field that a dotted path names; None when there is none."""
    name, _, rest = path.partition(".")
    field = message.fields_by_name.get(name)
    if field is None or not rest:
        return field
    return field_at(field.message_type, rest) if field.message_type is not None else None


def query_fields(method: MethodDescriptor, binding: Binding) -> Iterator[FieldDescriptor]:
    """The fields of the request that are neither in the path nor in the body: parameters of the query.

    A list of messages has no form there, so it is left out.
    """
    if binding.body == "*":
        return
    in_path = {variable.partition(".")[0] for variable in variables(binding.path)}
    for field in method.input_type.fields:
        if field.name not in in_path and field.name != binding.body and not is_list_of_messages(field):
            yield field


def is_list_of_messages(field: FieldDescriptor) -> bool:
    """Whether the field is a list of messages, and no map."""
    return field.is_repeated and field.message_type is not None and not is_map(field)


def json_path(path: str) -> str:
    """A template or a field path with its fields named as in JSON: {alert_id} becomes {alertId}."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), path)


def segments(path: str) -> tuple[list[str], str]:
    """The segments of a template, variables as "*", and its custom verb."""
    plain, _, verb = _VARIABLE.sub("*", path).partition(":")
    return plain.split("/"), verb


def collide(first: Binding, second: Binding) -> bool:
    """Whether one request can match both."""
    (one, verb), (other, other_verb) = segments(first.path), segments(second.path)
    if (first.verb, verb, len(one)) != (second.verb, other_verb, len(other)):
        return False
    return all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=True))
