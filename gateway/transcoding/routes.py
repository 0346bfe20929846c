"""The HTTP routes of the contract, from the annotations google.api.http of its methods."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)

_FILES = (alert_service_pb2, account_service_pb2, audit_service_pb2, limit_service_pb2, webhook_service_pb2)
_VARIABLE = re.compile(r"\{([a-z0-9_.]+)\}")
_PATTERN = re.compile(r"/(?P<path>[^:]*)(?::(?P<verb>[A-Za-z]+))?")


@dataclass(frozen=True, eq=False)
class Route:
    """One way to call a method over HTTP.

    verb: GET and so on. template: `/v1/alerts/{alert_id}:enable`. body: the field that is the body; "*": the request
    without the fields of the path; empty: there is none. response_body: the field that is the answer; empty: all.
    etag: the path of the field that If-Match sets; empty: there is none.
    """

    method: MethodDescriptor
    verb: str
    template: str
    body: str
    response_body: str
    variables: Sequence[tuple[str, FieldDescriptor]]
    request_class: type[Message]
    response_class: type[Message]
    etag: str

    @property
    def rpc(self) -> str:
        """The method as on the wire."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream."""
        return bool(self.method.server_streaming)

    def segments(self) -> tuple[list[str | None], str]:
        """The segments of the template, None for a variable, and the custom verb."""
        found = _PATTERN.fullmatch(_VARIABLE.sub("*", self.template))
        assert found is not None, self.template
        return [None if one == "*" else one for one in found["path"].split("/")], found["verb"] or ""


def services() -> Iterator[ServiceDescriptor]:
    """The services of the contract."""
    for file in _FILES:
        yield from file.DESCRIPTOR.services_by_name.values()


@cache
def routes() -> Sequence[Route]:
    """The routes of the contract. A method whose caller streams has none."""
    return [route for service in services() for method in service.methods for route in routes_of(method)]


def routes_of(method: MethodDescriptor) -> Iterator[Route]:
    """The routes of a method, the main one first."""
    options: Any = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    rule = options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        template = getattr(each, verb)
        variables = [(path, _field_at(method, path)) for path in _VARIABLE.findall(template)]
        yield Route(
            method,
            verb.upper(),
            template,
            each.body,
            each.response_body,
            variables,
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
            _etag(method, each.body),
        )


def _field_at(method: MethodDescriptor, path: str) -> FieldDescriptor:
    message: Descriptor | None = method.input_type
    field = None
    for name in path.split("."):
        assert message is not None, path
        field = message.fields_by_name[name]
        message = field.message_type
    assert field is not None
    return field


def _etag(method: MethodDescriptor, body: str) -> str:
    fields = method.input_type.fields_by_name
    if "etag" in fields:
        return "etag"
    resource = fields[body].message_type if body and body != "*" else None
    return f"{body}.etag" if resource is not None and "etag" in resource.fields_by_name else ""


@dataclass(frozen=True)
class Found:
    """What a path matches: by the verb of HTTP, a route and the encoded values of its variables."""

    by_verb: Mapping[str, tuple[Route, Sequence[str]]]


class _Node:
    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.routes: dict[str, dict[str, Route]] = {}  # by custom verb, by the verb of HTTP


class Router:
    """Finds the route of a path.

    The segments of a path are compared before they are decoded: an id may have any character, percent-encoded. The
    text after the last colon is a custom verb if there is one of that name at this place; otherwise it belongs to the
    id.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root = _Node()
        for route in routes:
            segments, verb = route.segments()
            node = self._root
            for segment in segments:
                if segment is not None:
                    node = node.fixed.setdefault(segment, _Node())
                    continue
                if node.variable is None:
                    node.variable = _Node()
                node = node.variable
            verbs = node.routes.setdefault(verb, {})
            assert route.verb not in verbs, route
            verbs[route.verb] = route

    def find(self, path: str) -> Found | None:
        """What a path, still encoded and without its query, matches; None: no route of any verb."""
        if not path.startswith("/"):
            return None
        *segments, last = path[1:].split("/")
        # A path with a custom verb first: /v1/usage:check is not the resource "usage:check".
        name, colon, verb = last.rpartition(":")
        if colon:
            found = self._find([*segments, name], verb)
            if found is not None:
                return found
        return self._find([*segments, last], "")

    def _find(self, segments: Sequence[str], verb: str) -> Found | None:
        by_verb: dict[str, tuple[Route, Sequence[str]]] = {}
        values: list[str] = []

        def walk(node: _Node, at: int) -> None:
            if at == len(segments):
                for http_verb, route in node.routes.get(verb, {}).items():
                    by_verb.setdefault(http_verb, (route, tuple(values)))
                return
            segment = segments[at]
            fixed = node.fixed.get(segment)
            if fixed is not None:
                walk(fixed, at + 1)
            if node.variable is not None and segment:
                values.append(segment)
                walk(node.variable, at + 1)
                values.pop()

        walk(self._root, 0)
        return Found(by_verb) if by_verb else None
