"""The contract as the commands are made from it: descriptors, without gRPC, and the first sentences of comments."""

import json
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

PACKAGE = "tidemark.v1"
_MODULES = {
    "AccountService": "account_service_pb2",
    "AlertService": "alert_service_pb2",
    "AuditService": "audit_service_pb2",
    "LimitService": "limit_service_pb2",
    "WebhookService": "webhook_service_pb2",
}
# Of requests and answers: what the command line itself gives or reads.
PAGING = frozenset({"page_size", "page_token", "include_total_size", "max_answer_bytes"})
TIMESTAMP, DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
FIELD_MASK = "google.protobuf.FieldMask"
_NUMBERS = frozenset(
    getattr(FieldDescriptor, f"TYPE_{name}")
    for name in ("INT32", "INT64", "UINT32", "UINT64", "SINT32", "SINT64", "FIXED32", "FIXED64")
)


@cache
def method(name: str) -> MethodDescriptor:
    """The RPC of that name, such as `AlertService/ListAlerts`."""
    service, _, rpc = name.partition("/")
    file = import_module(f"generated.{PACKAGE}.{_MODULES[service]}").DESCRIPTOR
    found: MethodDescriptor = file.services_by_name[service].methods_by_name[rpc]
    return found


def all_methods() -> list[str]:
    """The names of every RPC of the contract."""
    found = []
    for service, module in _MODULES.items():
        file = import_module(f"generated.{PACKAGE}.{module}").DESCRIPTOR
        found += [f"{service}/{each.name}" for each in file.services_by_name[service].methods]
    return found


def new(descriptor: Descriptor) -> Any:
    """A new, empty message."""
    made: Message = message_factory.GetMessageClass(descriptor)()
    return made


def behaviors(field: FieldDescriptor) -> frozenset[str]:
    """The names of the field's google.api.field_behavior."""
    options: Any = field.GetOptions()
    return frozenset(
        field_behavior_pb2.FieldBehavior.Name(each) for each in options.Extensions[field_behavior_pb2.field_behavior]
    )


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_number(field: FieldDescriptor) -> bool:
    """Whether the field is a whole number."""
    return field.type in _NUMBERS


def items_field(answer: Descriptor, name: str = "") -> FieldDescriptor | None:
    """The field of an answer that a command shows: the named one, else the first with messages; None: it has none."""
    if name:
        return answer.fields_by_name[name]
    return next((field for field in answer.fields if field.message_type is not None), None)


def is_list(answer: Descriptor, name: str = "") -> bool:
    """Whether an answer is a page of a list, or a list as a whole."""
    field = items_field(answer, name)
    return field is not None and field.is_repeated and not is_map(field)


def message_type(field: FieldDescriptor) -> Descriptor:
    """The type of a field with messages."""
    assert field.message_type is not None, field.full_name
    return field.message_type


def enum_type(field: FieldDescriptor) -> EnumDescriptor:
    """The type of a field with values of an enum."""
    assert field.enum_type is not None, field.full_name
    return field.enum_type


@cache
def _descriptions() -> dict[str, str]:
    text = (files("cli.resources") / "descriptions.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)
    return found


def description(full_name: str) -> str:
    """The first sentence of the comment of a field, a method, or a message, by its full name; empty if unknown."""
    return _descriptions().get(full_name, "")


def enum_names(field: FieldDescriptor) -> dict[str, int]:
    """The values of an enum by their short names: `critical` of SEVERITY_CRITICAL; without the unspecified one."""
    prefix = enum_prefix(field)
    return {
        value.name.removeprefix(prefix).lower().replace("_", "-"): value.number
        for value in enum_type(field).values
        if value.number
    }


def enum_prefix(field: FieldDescriptor) -> str:
    """What the names of all values of an enum begin with."""
    first: str = enum_type(field).values[0].name
    return first.removesuffix("UNSPECIFIED")
