"""The request of a call, from the path, the query, the body and the headers of an HTTP request."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.transcoding.duplicates import TWICE, duplicate_of
from gateway.transcoding.problems import Later, Problems
from gateway.transcoding.reading import MAX_SHOWN, field_reader, read_message, text_reader
from gateway.transcoding.routes import Route

_KEY = re.compile(r"([^\[\]]+)\[(.*)\]", re.DOTALL)
_TEXTS = {"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"}

AT_ONCE = 1_000  # events, and members of them, that are read without a pause, about 2 ms
NOT_UTF8 = "a text has characters that UTF-8 cannot express"

Arguments = dict[str, Any]


class NotJson(Exception):
    """The body is not JSON; the message says where."""


def read_request(
    route: Route, values: Sequence[str], query: str, body: bytes, problems: Problems, if_match: str | None = None
) -> Iterator[Message | None]:
    """Reads a request: None after each part of a long one, and then the request, unless there are problems.

    values: of the variables, encoded. if_match: the etag of the header If-Match. Raises NotJson.
    """
    arguments = read_body(route, body, problems)
    for (path, field), value in zip(route.variables, values, strict=True):
        text = _decoded(value, path, problems)
        stated = text_reader(field)(text, path, problems)
        _put(arguments, path, stated, problems, must_equal=True)
    if query:
        read_query(route, query, arguments, problems)
    if if_match is not None and route.etag:
        _put(arguments, route.etag, if_match, problems, must_equal=True)
    if problems.found or problems.too_many_events is not None:
        return
    message = made(route.request_class, arguments, problems)
    if message is not None and problems.later is not None:
        for _ in _read_later(message, problems.later, problems):
            yield None
    if problems.found:
        return
    if body and (twice := duplicate_of(body, problems.members)) is not None:
        problems.add(twice, TWICE)
        return
    yield message


def _read_later(message: Message, later: Later, problems: Problems) -> Iterator[None]:
    """Adds the events to a message, a few at a time."""
    field: Any = functools.reduce(getattr, later.path.split("."), message)
    done, pause = 0, problems.members + AT_ONCE
    for index, each in enumerate(later.events):
        if problems.is_full:  # no more of them would be shown
            return
        done += 1
        if done + problems.members > pause:
            yield
            pause = done + problems.members + AT_ONCE
        if each is None:
            problems.add(f"{later.path}[{index}]", "null is no element")
            continue
        arguments = later.read(each, f"{later.path}[{index}]", problems)
        if problems.found:
            continue
        try:
            field.add(**arguments)
        except (ValueError, TypeError):
            problems.add(f"{later.path}[{index}]", NOT_UTF8)


def made(message: type[Message], arguments: Mapping[str, Any], problems: Problems) -> Message | None:
    """The message with these arguments; None where a text cannot be encoded."""
    try:
        return message(**arguments)
    except (ValueError, TypeError):  # a surrogate without its other half
        problems.add("", NOT_UTF8)
        return None


def read_body(route: Route, body: bytes, problems: Problems) -> Arguments:
    """The arguments in the body. Raises NotJson."""
    if not body.strip():
        return {}
    if not route.body:
        problems.add("", "the request has a body, and this path takes none")
        return {}
    value = parsed(body)
    if route.body == "*":
        return read_message(route.method.input_type, value, "", problems) or {}
    field = route.method.input_type.fields_by_name[route.body]
    return {route.body: field_reader(field)(value, route.body, problems)}


def parsed(body: bytes) -> Any:
    """The JSON value of a body. Raises NotJson."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"line {error.lineno}, column {error.colno}: {error.msg}") from None


def read_query(route: Route, query: str, arguments: Arguments, problems: Problems) -> None:
    """Adds the parameters of the query: fields of the request that neither path nor body have.

    A nested field is named with dots, an entry of a map as labels[key], and a repeated field is named once for each
    value.
    """
    parameters = _parameters(route)
    for part in query.split("&"):
        if not part:
            continue
        encoded_name, _, encoded_value = part.partition("=")
        name = _decoded(encoded_name.replace("+", " "), "", problems)
        value = _decoded(encoded_value.replace("+", " "), name, problems)
        entry = _KEY.fullmatch(name)
        base, key = (entry[1], entry[2]) if entry else (name, None)
        path = parameters.get(base) or _nested(route, base)
        if path is None:
            problems.add(name[:MAX_SHOWN], _no_parameter(route, base))
            continue
        field = _field(route.method.input_type, path)
        message = field.message_type
        is_map = message is not None and message.GetOptions().map_entry
        if is_map != (key is not None):
            problems.add(name[:MAX_SHOWN], f"write {base}[KEY]=VALUE" if is_map else "it is no map")
        elif is_map and message is not None:
            read = text_reader(message.fields_by_name["value"])
            entries = _reached(arguments, path.split(".")[:-1]).setdefault(field.name, {})
            if key in entries:
                problems.add(name[:MAX_SHOWN], "it is set twice")
            entries[key] = read(value, name, problems)
        elif field.is_repeated:
            found = _reached(arguments, path.split(".")[:-1]).setdefault(field.name, [])
            found.append(text_reader(field)(value, f"{path}[{len(found)}]", problems))
        else:
            _put(arguments, path, text_reader(field)(value, path, problems), problems)
    _check_oneofs(route.method.input_type, arguments, problems)


@cache
def _parameters(route: Route) -> Mapping[str, str]:
    """The paths of the fields at the top of the request, by both of their names."""
    taken = {path.partition(".")[0] for path, _ in route.variables} | {route.body}
    found = {}
    if route.body != "*":
        for field in route.method.input_type.fields:
            if field.name not in taken and _fits_query(field):
                found[field.name] = found[field.json_name] = field.name
    return found


def _fits_query(field: FieldDescriptor) -> bool:
    message = field.message_type
    if message is None:
        return True
    if message.GetOptions().map_entry:
        return message.fields_by_name["value"].message_type is None
    return message.full_name in _TEXTS and not field.is_repeated


def _nested(route: Route, name: str) -> str | None:
    """The path of a nested field, by the names of JSON or of the contract."""
    if route.body == "*" or "." not in name:
        return None
    message: Descriptor | None = route.method.input_type
    path: list[str] = []
    field: FieldDescriptor | None = None
    for part in name.split("."):
        if message is None or (field is not None and field.is_repeated):
            return None
        field = message.fields_by_name.get(part) or message.fields_by_camelcase_name.get(part)
        if field is None:
            return None
        path.append(field.name)
        message = field.message_type
    # A variable of the path may be in the same message as the parameter.
    if path[0] == route.body or ".".join(path) in dict(route.variables) or field is None or not _fits_query(field):
        return None
    return ".".join(path)


def _no_parameter(route: Route, name: str) -> str:
    if route.body == "*":
        return "this path takes no parameters: write it into the body"
    if any(name in (path, field.json_name) for path, field in route.variables):
        return "it is a part of the path"
    field = route.method.input_type.fields_by_name.get(name)
    if field is not None and name == route.body:
        return "it is the body"
    return "there is no such parameter"


def _field(message: Descriptor, path: str) -> FieldDescriptor:
    *outer, last = path.split(".")
    for name in outer:
        inner = message.fields_by_name[name].message_type
        assert inner is not None
        message = inner
    return message.fields_by_name[last]


def _reached(arguments: Arguments, path: Sequence[str]) -> Arguments:
    """The arguments of a nested message, which is made where it is missing."""
    for name in path:
        inner = arguments.get(name)
        if inner is None:
            inner = arguments[name] = {}
        arguments = inner
    return arguments


def _put(arguments: Arguments, path: str, value: Any, problems: Problems, *, must_equal: bool = False) -> None:
    """Sets a field. One that is set already is a problem; with must_equal, only if it has another value."""
    *outer, name = path.split(".")
    holder = _reached(arguments, outer)
    if name in holder and not (must_equal and holder[name] in (value, "", 0)):
        same = "the body has another value than the path or the header If-Match" if must_equal else "it is set twice"
        problems.add(path, same)
        return
    holder[name] = value


def _check_oneofs(message: Descriptor, arguments: Arguments, problems: Problems) -> None:
    for oneof in message.oneofs:
        chosen = [field.name for field in oneof.fields if field.name in arguments]
        if len(chosen) > 1:
            problems.add(chosen[1], f"{chosen[0]} is set, too; set one of them")


def _decoded(text: str, path: str, problems: Problems) -> str:
    if "%" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        problems.add(path[:MAX_SHOWN], "it is not UTF-8, percent-encoded")
        return ""
