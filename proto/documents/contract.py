"""The contract as the documents are written from it: descriptors of generated/, and the comments of proto/."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
PACKAGE = "tidemark.v1"
VERBS = ("get", "put", "post", "delete", "patch")


def _file(path: Path) -> FileDescriptor:
    descriptor: FileDescriptor = import_module(f"generated.tidemark.v1.{path.stem}_pb2").DESCRIPTOR
    return descriptor


FILES: list[FileDescriptor] = [_file(path) for path in sorted((PROTO / "tidemark" / "v1").glob("*.proto"))]
SERVICES: list[ServiceDescriptor] = [each for file in FILES for each in file.services_by_name.values()]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
MESSAGES: list[Descriptor] = [each for file in FILES for each in file.message_types_by_name.values()]
ENUMS: list[EnumDescriptor] = [each for file in FILES for each in file.enum_types_by_name.values()]


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call a method over HTTP: verb, path template, and the field that is the request's body.

    body is empty when there is none, and "*" when it is the whole request without the fields of the path.
    """

    verb: str
    path: str
    body: str


def bindings(method: MethodDescriptor) -> list[Binding]:
    """The HTTP bindings of a method, the main one first; empty when it has none."""
    options: Any = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return []
    rule = options.Extensions[annotations_pb2.http]
    return [_binding(each) for each in (rule, *rule.additional_bindings)]


def _binding(rule: Any) -> Binding:
    verb = rule.WhichOneof("pattern")
    return Binding(verb, getattr(rule, verb), rule.body)


def behaviors(field: FieldDescriptor) -> list[str]:
    """The names of the field's google.api.field_behavior."""
    options: Any = field.GetOptions()
    return [
        field_behavior_pb2.FieldBehavior.Name(each) for each in options.Extensions[field_behavior_pb2.field_behavior]
    ]


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


@cache
def comments() -> dict[str, str]:
    """The comment before each message, field, oneof, enum, value, service and method, by its full name.

    Values of an enum are below it here: tidemark.v1.AlertState.ALERT_STATE_ENABLED.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "contract.binpb"
        subprocess.run(
            [
                sys.executable,
                *("-m", "grpc_tools.protoc", "--include_source_info"),
                f"--proto_path={PROTO}",
                f"--proto_path={ROOT / 'third_party' / 'protovalidate'}",
                f"--proto_path={Path(str(files('google.rpc') / 'status.proto')).parents[2]}",
                f"--descriptor_set_out={target}",
                *(file.name for file in FILES),
            ],
            check=True,
        )
        described = FileDescriptorSet.FromString(target.read_bytes())
    return {name: comment for file in described.file for name, comment in _comments_of(file)}


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    names = dict(_names(file))
    for location in file.source_code_info.location:
        name = names.get(tuple(location.path))
        if name is not None and location.leading_comments:
            lines = location.leading_comments.rstrip().split("\n")
            yield name, "\n".join(line.removeprefix(" ") for line in lines)


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """The path of everything that a file declares, as source locations write it, with its full name."""
    for index, message in enumerate(file.message_type):
        yield from _names_in_message((4, index), f"{file.package}.{message.name}", message)
    for index, enum in enumerate(file.enum_type):
        yield from _names_in_enum((5, index), f"{file.package}.{enum.name}", enum)
    for index, service in enumerate(file.service):
        yield (6, index), (name := f"{file.package}.{service.name}")
        yield from (((6, index, 2, number), f"{name}.{method.name}") for number, method in enumerate(service.method))


def _names_in_message(
    path: tuple[int, ...], name: str, message: DescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    yield from (((*path, 2, index), f"{name}.{field.name}") for index, field in enumerate(message.field))
    yield from (((*path, 8, index), f"{name}.{oneof.name}") for index, oneof in enumerate(message.oneof_decl))
    for index, nested in enumerate(message.nested_type):
        yield from _names_in_message((*path, 3, index), f"{name}.{nested.name}", nested)
    for index, enum in enumerate(message.enum_type):
        yield from _names_in_enum((*path, 4, index), f"{name}.{enum.name}", enum)


def _names_in_enum(
    path: tuple[int, ...], name: str, enum: EnumDescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    yield from (((*path, 2, index), f"{name}.{value.name}") for index, value in enumerate(enum.value))
