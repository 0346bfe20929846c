"""The forms of CloudEvents 1.0 over HTTP: one in its headers (binary), one or several in JSON (structured, batch)."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from gateway.calls import refusals
from gateway.transcoding.problems import Violation

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
PREFIX = "ce-"
REQUIRED = ("id", "source", "type")
_NO_DATA = object()
_ATTRIBUTES = {str, bool, int, type(None)}


@dataclass(slots=True)
class CloudEvent:
    """One event. attributes: also extensions. data: of JSON, with exact decimals; None: it has none.

    problems: what is wrong with the event itself; paths are names of attributes.
    """

    attributes: Mapping[str, Any]
    data: Any
    problems: list[Violation]


def read_events(headers: Mapping[str, str], body: bytes) -> tuple[Sequence[CloudEvent], bool]:
    """The events of a request, and whether they are a batch. Raises Refusal where it is none."""
    kind, _, parameters = headers.get("Content-Type", "").partition(";")
    kind = kind.strip().lower()
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise refusals.malformed("send CloudEvents in UTF-8", http_code=415)
    if kind == BATCH:
        events = parse_json(body)
        if type(events) is not list:
            raise refusals.malformed(f"the body of {BATCH} is a list of events")
        return [_structured(event) for event in events], True
    if kind == STRUCTURED:
        return [_structured(parse_json(body))], False
    if any(name.lower().startswith(PREFIX) for name in headers):
        return [_binary(headers, kind, body)], False
    raise refusals.malformed(
        f"this is no CloudEvent: send {STRUCTURED}, {BATCH}, or the attributes in headers such as ce-id",
        http_code=415,
        headers={"Accept": f"{STRUCTURED}, {BATCH}, application/json"},
    )


def parse_json(body: bytes) -> Any:
    """The JSON value of a body, with exact decimals. Raises Refusal."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refusals.malformed(f"the body is not JSON: {str(error)[:200]}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _structured(event: Any) -> CloudEvent:
    if type(event) is not dict:
        return CloudEvent({}, None, [Violation("", "an event is an object")])
    data = event.get("data", _NO_DATA)
    encoded = event.get("data_base64")
    problems: list[Violation] = []
    if encoded is not None and data is not _NO_DATA:
        problems.append(Violation("data_base64", "data is set, too; set one of them"))
    elif encoded is not None:
        data = _decoded(encoded, problems)
    attributes = event
    event.pop("data", None)
    event.pop("data_base64", None)
    for name, value in attributes.items():
        if type(value) not in _ATTRIBUTES:
            problems.append(Violation(name[:100], "an attribute is a text, a whole number, or true or false"))
    return _checked(attributes, None if data is _NO_DATA else data, problems)


def _decoded(encoded: Any, problems: list[Violation]) -> Any:
    """The JSON in data_base64."""
    try:
        return json.loads(b64decode(encoded, validate=True), parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError):
        problems.append(Violation("data_base64", "it is not JSON in base64"))
        return None


def _binary(headers: Mapping[str, str], kind: str, body: bytes) -> CloudEvent:
    problems: list[Violation] = []
    attributes: dict[str, Any] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower.startswith(PREFIX):
            if lower[len(PREFIX) :] in attributes:
                problems.append(Violation(lower[len(PREFIX) :], "its header is there twice"))
            attributes[lower[len(PREFIX) :]] = _text_of_header(value)
    data = None
    if body:
        if kind != "application/json" and not kind.endswith("+json"):
            problems.append(
                Violation("datacontenttype", f"it is {kind[:80] or 'unset'}; send data as application/json")
            )
        else:
            data = parse_json(body)
    return _checked(attributes, data, problems)


def _text_of_header(value: str) -> str:
    """The text of an attribute: quotes around it and percent-encoding are taken off, as the binding to HTTP says."""
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return unquote(value)


def _checked(attributes: Mapping[str, Any], data: Any, problems: list[Violation]) -> CloudEvent:
    if attributes.get("specversion") != "1.0":
        problems.append(Violation("specversion", 'it must be "1.0"'))
    for name in REQUIRED:
        value = attributes.get(name)
        if type(value) is not str or not value:
            problems.append(Violation(name, "it is required: a text that is not empty"))
    kind = attributes.get("datacontenttype")
    if data is not None and type(kind) is str:
        plain = kind.partition(";")[0].strip().lower()
        if plain != "application/json" and not plain.endswith("+json"):
            problems.append(Violation("datacontenttype", f"it is {kind[:80]!r}; only data in JSON is read"))
    return CloudEvent(attributes, data, problems)
