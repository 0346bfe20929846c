"""The contract as descriptors: its files, services, methods, messages and HTTP rules."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

ROOT = Path(__file__).resolve().parents[2]
_PROTO = ROOT / "proto" / "tidemark" / "v1"
VERBS = ("get", "put", "post", "delete", "patch")


def _file(path: Path) -> FileDescriptor:
    descriptor: FileDescriptor = import_module(f"generated.tidemark.v1.{path.stem}_pb2").DESCRIPTOR
    return descriptor


FILES: list[FileDescriptor] = [_file(path) for path in sorted(_PROTO.glob("*.proto"))]
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for _, service in sorted(file.services_by_name.items())
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
MESSAGES: list[Descriptor] = [message for file in FILES for _, message in sorted(file.message_types_by_name.items())]


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call a method over HTTP: verb, path template, and the field that is the request's body.

    body is empty when there is none, and "*" when the whole request is.
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
