"""The pages of docs/api: an index, one page for each service, the shared types, and the error reasons."""

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

from generated.tidemark.v1 import role_pb2
from proto.documents.contract import (
    ENUMS,
    MESSAGES,
    METHODS,
    PACKAGE,
    SERVICES,
    Binding,
    behaviors,
    bindings,
    comments,
    is_map,
)
from proto.documents.error_reasons import documented_reasons, mentioned_reasons
from proto.documents.examples import Step, session
from proto.documents.http_paths import variables

_WRITTEN = "<!-- Written by `make docs` from proto/ and docs/api/examples; never edited by hand. -->\n\n"

_INDEX = """\
# The API

Four services, in the package `tidemark.v1`. Every call needs an API key in the metadata `authorization: Bearer KEY`,
unless the server runs without keys ([commands](commands.md#keys)); the key decides the organization.

- Amounts and quantities are texts with a decimal number: exact, and the same in every language.
- Every error has a reason ([errors](api/errors.md)). Programs decide by it; messages are for people and may change.
- Fields and enums that several methods share stand in [types](api/types.md).
- The paths are those of [HTTP and JSON](http.md), where the server has a port for it, and of gateways that follow
  `google.api.http`, such as grpc-gateway or Envoy's gRPC-JSON transcoder. [openapi.json](openapi.json) is the same in
  OpenAPI 3.1. Ids in a path are percent-encoded.
- The examples are requests and answers in the JSON of protobuf, as grpcurl takes and prints them. A test runs all of
  them against a server.
"""

_ERRORS = """\
# Errors

Every error is a `google.rpc.Status`. Its details have a `google.rpc.ErrorInfo` with the domain `tidemark.dev`, one of
these reasons, and the metadata that is shown. ERROR_REASON_INVALID_FIELD adds a `google.rpc.BadRequest` with the path
of each bad field.

"""

_TYPES = "# Types\n\nThe messages and enums that requests and answers have in common.\n\n"


def pages() -> dict[str, str]:
    """Every page with its path below docs/."""
    return {
        "api.md": _WRITTEN + _index(),
        **{f"api/{page_of(service)}": _WRITTEN + _service(service) for service in SERVICES},
        "api/types.md": _WRITTEN + _types(),
        "api/errors.md": _WRITTEN + _errors(),
    }


def page_of(service: ServiceDescriptor) -> str:
    """The name of the service's page: AlertService has alert-service.md."""
    return "-".join(re.findall(r"[A-Z][a-z]+", service.name)).lower() + ".md"


# The pages of the requests and answers, by their full names. A batch has the requests of other methods.
_PAGES = {
    end.full_name: page_of(method.containing_service)
    for method in METHODS
    for end in (method.input_type, method.output_type)
}


def _index() -> str:
    parts = [_INDEX]
    for service in SERVICES:
        parts.append(f"\n## {service.name}\n\n{_comment(service.full_name)}\n\n| method | HTTP | |\n|---|---|---|\n")
        for method in service.methods:
            link = f"[{method.name}](api/{page_of(service)}#{method.name.lower()})"
            paths = "<br>".join(f"`{binding.verb.upper()} {binding.path}`" for binding in bindings(method))
            parts.append(f"| {link} | {paths} | {_first_sentence(method)} |\n")
    return "".join(parts)


def _first_sentence(method: MethodDescriptor) -> str:
    text = " ".join(_comment(method.full_name).split()).removeprefix(method.name).strip()
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0].replace("|", r"\|")


def _service(service: ServiceDescriptor) -> str:
    steps = session(service)
    parts = [f"# {service.name}\n\n{_comment(service.full_name)}\n"]
    parts += [_method(method, [step for step in steps if step.method is method]) for method in service.methods]
    return "\n".join(parts)


def _method(method: MethodDescriptor, steps: list[Step]) -> str:
    streams = " (a stream)" if method.client_streaming else ""
    answers = " (a stream)" if method.server_streaming else ""
    parts = [
        f"## {method.name}\n\n{_comment(method.full_name)}\n",
        *_http(method),
        _role(method),
        f"### {method.input_type.name}{streams}\n\n{_fields(method.input_type)}",
        f"### {method.output_type.name}{answers}\n\n{_fields(method.output_type)}",
        *_method_errors(method, steps),
        *_example(steps),
    ]
    return "\n".join(parts)


def _role(method: MethodDescriptor) -> str:
    options = method.GetOptions().Extensions
    role = role_pb2.Role.Name(options[role_pb2.required_role]).removeprefix("ROLE_").lower()
    fields = " or ".join(f"`{name}`" for name in options[role_pb2.customer_fields])
    limited = f"; a key of one customer has to name it in {fields}" if fields else ""
    return f"Role: {role}{limited}.\n"


def _http(method: MethodDescriptor) -> Iterator[str]:
    for binding in bindings(method):
        yield f"HTTP: `{binding.verb.upper()} {binding.path}`{_body(binding)}.\n"


def _body(binding: Binding) -> str:
    if binding.body == "*":
        without = " without the fields of the path" if variables(binding.path) else ""
        return f"; the body is the request{without}"
    return f"; the body is `{binding.body}`" if binding.body else ""


def _method_errors(method: MethodDescriptor, steps: list[Step]) -> Iterator[str]:
    texts = [comments()[method.full_name], *(comments()[field.full_name] for field in method.input_type.fields)]
    names = [*(step.error["reason"] for step in steps if step.error is not None), *mentioned_reasons(" ".join(texts))]
    if names:
        links = ", ".join(f"[{name}](errors.md#{name.lower()})" for name in dict.fromkeys(names))
        yield f"Errors of its own: {links}.\n"


def _example(steps: list[Step]) -> Iterator[str]:
    for step in steps:
        if step.error is None:
            yield f"Example, the request and its answer:\n\n{_json(step.request)}\n"
            yield from (f"{_json(answer)}\n" for answer in step.answers)
            return


def _json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def _types() -> str:
    shared = [message for message in MESSAGES if message.full_name not in _PAGES]
    enums = [enum for enum in ENUMS if enum.name != "ErrorReason"]
    entries = {each.name: _type(each) for each in shared} | {each.name: _enum(each) for each in enums}
    return _TYPES + "\n".join(text for _, text in sorted(entries.items()))


def _type(message: Descriptor) -> str:
    return f"## {message.name}\n\n{_comment(message.full_name)}\n\n{_fields(message)}"


def _enum(enum: EnumDescriptor) -> str:
    values = "\n".join(
        f"- `{value.name}` ({value.number})\n{_indented(f'{enum.full_name}.{value.name}')}" for value in enum.values
    )
    return f"## {enum.name}\n\n{_comment(enum.full_name)}\n\n{values}"


def _fields(message: Descriptor) -> str:
    found = [f"- `{field.name}` ({_kind(field)})\n{_indented(field.full_name)}" for field in message.fields]
    return "\n".join(found) or "No fields.\n"


def _kind(field: FieldDescriptor) -> str:
    words = [_type_of(field)]
    oneof = field.containing_oneof
    if oneof is not None and len(oneof.fields) > 1:
        words.append(f"one of `{oneof.name}`")
    words += [each.lower().replace("_", " ") for each in behaviors(field) if each != "OPTIONAL"]
    return ", ".join([*words, str(field.number)])


def _type_of(field: FieldDescriptor) -> str:
    if is_map(field):
        assert field.message_type is not None
        key, value = (_single(field.message_type.fields_by_name[name]) for name in ("key", "value"))
        return f"map of {key} to {value}"
    return f"list of {_single(field)}" if field.is_repeated else _single(field)


_SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def _single(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    if named is None:
        return _SCALARS[field.type]
    if named.file.package != PACKAGE:
        return str(named.name)
    if named.name == "ErrorReason":
        return f"[{named.name}](errors.md)"
    return f"[{named.name}]({_PAGES.get(named.full_name, 'types.md')}#{named.name.lower()})"


def _errors() -> str:
    return _ERRORS + "\n".join(
        f"## {reason.name}\n\n`{reason.code}`: {_escaped(reason.text)}\n\n{_json(reason.metadata)}\n"
        for reason in documented_reasons()
    )


def _comment(full_name: str) -> str:
    return _escaped(comments()[full_name])


def _indented(full_name: str) -> str:
    return "".join(f"  {line}\n" if line else "\n" for line in _comment(full_name).split("\n"))


def _escaped(text: str) -> str:
    """A comment as Markdown: what it would take for emphasis or HTML stays as it is written."""
    return re.sub(r"[*<\[]", r"\\\g<0>", text)
