"""OpenAPI 3.1 of the contract: how a gateway that follows google.api.http presents it."""

from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from proto.documents.cloudevents import EVENT_SCHEMAS, EVENTS_OPERATION, EVENTS_PATH, EVENTS_TAG
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
from proto.documents.http_paths import field_at, json_path, query_fields, variables

Json = dict[str, Any]

_DESCRIPTION = """\
Tidemark serves gRPC, and the same methods over HTTP and JSON on the port of `TIDEMARK_HTTP_LISTEN`, with the
annotations `google.api.http` of `proto/tidemark/v1`.

Names in JSON are in lowerCamelCase; descriptions name fields as the contract does, `alert_id` for `alertId`. Both are
accepted. A parameter of a path is percent-encoded: an id may have any printable character.

A gateway of one's own, such as grpc-gateway or Envoy's gRPC-JSON transcoder, has the same paths for the methods.
Errors have another form there, and there are no CloudEvents.

EvaluateUsage is a stream in both directions, which HTTP cannot carry: use gRPC, or EvaluateUsageBatch.
"""

_WELL_KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.rpc.Status": {"$ref": "#/components/schemas/Status"},
}

_SCALARS: dict[int, Json] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32"},
    # JSON numbers are not exact beyond 2^53: the mapping of protobuf writes 64-bit integers as texts.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}

_ERROR: Json = {
    "type": "object",
    "description": "Every answer that is no success.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer", "format": "int32", "description": "The code of HTTP."},
                "status": {"type": "string", "description": "The name of the gRPC code."},
                "message": {"type": "string", "description": "A text for people."},
                "details": {"$ref": "#/components/schemas/Status/properties/details"},
            },
            "required": ["code", "status", "message", "details"],
        }
    },
    "required": ["error"],
}

_STATUS: Json = {
    "type": "object",
    "description": "An error of a part of an answer. details has a google.rpc.ErrorInfo with an ErrorReason; bad"
    " fields add a google.rpc.BadRequest, and failures that pass add a google.rpc.RetryInfo.",
    "properties": {
        "code": {"type": "integer", "format": "int32", "description": "The gRPC code."},
        "message": {"type": "string", "description": "A text for people."},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"@type": {"type": "string"}},
                "required": ["@type"],
                "additionalProperties": True,
            },
        },
    },
}


def openapi() -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for method in METHODS:
        for number, binding in enumerate(bindings(method)):
            paths.setdefault(json_path(binding.path), {})[binding.verb] = _operation(method, binding, number)
    paths[EVENTS_PATH] = {"post": EVENTS_OPERATION}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemark",
            "version": version("tidemark"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "tags": [
            *({"name": each.name, "description": _text(each.full_name)} for each in SERVICES),
            {"name": EVENTS_TAG, "description": "Usage as CloudEvents 1.0."},
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": {
                    "description": "The request was refused, or failed.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
            "schemas": {
                **{message.name: _message(message) for message in MESSAGES},
                **{enum.name: _enum(enum) for enum in ENUMS},
                "Status": _STATUS,
                "Error": _ERROR,
                **EVENT_SCHEMAS,
            },
        },
    }


def _text(full_name: str) -> str:
    return comments().get(full_name, "")


def _operation(method: MethodDescriptor, binding: Binding, number: int) -> Json:
    text = _text(method.full_name)
    streams = method.server_streaming
    found: Json = {
        "operationId": method.name + (str(number + 1) if number else ""),
        "tags": [method.containing_service.name],
        "description": text,
        "parameters": [
            *(_path_parameter(method, variable) for variable in variables(binding.path)),
            *(_query_parameter(field) for field in query_fields(method, binding)),
        ],
        "responses": {
            "200": {
                "description": "One after the other, each as JSON of its own in a line or an event."
                if streams
                else "The answer.",
                "content": {
                    kind: {"schema": _ref(method.output_type)}
                    for kind in (("application/x-ndjson", "text/event-stream") if streams else ("application/json",))
                },
            },
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if binding.body:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body(method, binding)}},
        }
    return found


def _path_parameter(method: MethodDescriptor, variable: str) -> Json:
    field = field_at(method.input_type, variable)
    assert field is not None
    return {
        "name": json_path(variable),
        "in": "path",
        "required": True,
        "description": _text(field.full_name),
        "schema": {"type": "string"},
    }


def _query_parameter(field: FieldDescriptor) -> Json:
    found: Json = {
        "name": field.json_name,
        "in": "query",
        "description": _text(field.full_name),
        "schema": _type(field),
    }
    if "REQUIRED" in behaviors(field):
        found["required"] = True
    if is_map(field):
        found |= {"style": "deepObject", "explode": True}  # labels[key]=value
    return found


def _body(method: MethodDescriptor, binding: Binding) -> Json:
    """The schema of the body: the resource, or the request without what the path has."""
    if binding.body != "*":
        return _type(method.input_type.fields_by_name[binding.body])
    in_path = set(variables(binding.path))
    if not in_path:
        return _ref(method.input_type)
    return _object([field for field in method.input_type.fields if field.name not in in_path])


def _message(message: Descriptor) -> Json:
    found = _object(message.fields)
    described = [_text(message.full_name)]
    for oneof in message.oneofs:
        names = ", ".join(field.json_name for field in oneof.fields)
        if len(oneof.fields) > 1:
            described.append(f"At most one of these is set: {names}.")
    return {"type": "object", "description": "\n\n".join(described), **found}


def _object(fields: Any) -> Json:
    found: Json = {"type": "object", "properties": {field.json_name: _property(field) for field in fields}}
    if required := [field.json_name for field in fields if "REQUIRED" in behaviors(field)]:
        found["required"] = required
    return found


def _property(field: FieldDescriptor) -> Json:
    found = {**_type(field), "description": _text(field.full_name)}
    if "OUTPUT_ONLY" in behaviors(field):
        found["readOnly"] = True
    if "INPUT_ONLY" in behaviors(field):
        found["writeOnly"] = True
    return found


def _type(field: FieldDescriptor) -> Json:
    if is_map(field):
        assert field.message_type is not None
        return {"type": "object", "additionalProperties": _single(field.message_type.fields_by_name["value"])}
    if field.is_repeated:
        return {"type": "array", "items": _single(field)}
    return _single(field)


def _single(field: FieldDescriptor) -> Json:
    if field.message_type is not None:
        return _ref(field.message_type)
    if field.enum_type is not None:
        return {"$ref": f"#/components/schemas/{field.enum_type.name}"}
    return dict(_SCALARS[field.cpp_type])


def _ref(message: Descriptor) -> Json:
    if message.file.package != PACKAGE:
        return dict(_WELL_KNOWN[message.full_name])
    return {"$ref": f"#/components/schemas/{message.name}"}


def _enum(enum: EnumDescriptor) -> Json:
    values = "\n\n".join(_text(f"{enum.full_name}.{value.name}") for value in enum.values)
    return {
        "type": "string",
        "description": f"{_text(enum.full_name)}\n\n{values}",
        "enum": [value.name for value in enum.values],
    }
