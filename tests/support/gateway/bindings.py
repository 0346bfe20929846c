"""A request of the contract as an HTTP request, by its google.api.http: what a client does, without the gateway."""

from dataclasses import dataclass
from functools import reduce
from typing import Any
from urllib.parse import quote, urlencode

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from proto.documents.contract import METHODS, Binding, bindings, is_map
from proto.documents.http_paths import is_list_of_messages, query_fields, variables

CARRIED = [(method, binding) for method in METHODS for binding in bindings(method)]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """verb: GET and so on. target: path and query, encoded. body: JSON; None: there is none."""

    verb: str
    target: str
    body: Any


def http_request(
    method: MethodDescriptor, binding: Binding, request: Message, *, contract_names: bool = False
) -> HttpRequest:
    """The HTTP request with this content. contract_names: fields are named as in the contract."""
    stated = MessageToDict(request, preserving_proto_field_name=contract_names)
    path = binding.path
    for variable in variables(binding.path):
        value = reduce(getattr, variable.split("."), request)
        path = path.replace(f"{{{variable}}}", quote(str(value), safe=""))
        _without(stated, method, variable, contract_names)
    query: list[tuple[str, str]] = []
    for field in query_fields(method, binding):
        query += _parameters(field, stated, contract_names)
    body = None
    if binding.body == "*":
        body = stated
    elif binding.body:
        field = method.input_type.fields_by_name[binding.body]
        body = stated.get(field.name if contract_names else field.json_name)
    return HttpRequest(binding.verb.upper(), path + (f"?{urlencode(query)}" if query else ""), body)


def carries(method: MethodDescriptor, binding: Binding, request: Message) -> bool:
    """Whether a binding has a place for all fields that a request sets: a list of messages has none in a query."""
    named = [reduce(getattr, variable.split("."), request) for variable in variables(binding.path)]
    if not all(str(value) for value in named):
        return False
    placed = {field.name for field in query_fields(method, binding)} | {binding.body}
    placed |= {variable.partition(".")[0] for variable in variables(binding.path)}
    return binding.body == "*" or all(field.name in placed for field, _ in request.ListFields())


def fitting(method: MethodDescriptor, binding: Binding, request: Any) -> Message:
    """The request without what the binding has no place for, and with a value for each variable of its path."""
    found: Message = type(request)()
    found.CopyFrom(request)
    for variable in variables(binding.path):
        *outer, name = variable.split(".")
        holder = reduce(getattr, outer, found)
        if not getattr(holder, name):
            setattr(
                holder, name, 7 if holder.DESCRIPTOR.fields_by_name[name].type == FieldDescriptor.TYPE_INT64 else "x"
            )
        if outer and binding.body != outer[0]:
            raise AssertionError(f"{variable} is not in the body")
    if binding.body != "*":
        for field in method.input_type.fields:
            if is_list_of_messages(field) and field.name != binding.body:
                found.ClearField(field.name)
    return found


def _without(stated: Any, method: MethodDescriptor, variable: str, contract_names: bool) -> None:
    """Takes the field of a variable out of the JSON."""
    message, holder = method.input_type, stated
    *outer, last = variable.split(".")
    for name in outer:
        field = message.fields_by_name[name]
        holder = holder.get(field.name if contract_names else field.json_name, {})
        assert field.message_type is not None
        message = field.message_type
    field = message.fields_by_name[last]
    holder.pop(field.name if contract_names else field.json_name, None)


def _parameters(field: FieldDescriptor, stated: Any, contract_names: bool) -> list[tuple[str, str]]:
    name = field.name if contract_names else field.json_name
    if name not in stated:
        return []
    value = stated[name]
    if is_map(field):
        return [(f"{name}[{key}]", _text(each)) for key, each in value.items()]
    if field.is_repeated:
        return [(name, _text(each)) for each in value]
    return [(name, _text(value))]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
