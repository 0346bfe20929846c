"""CloudEvents 1.0 as JSON has them, wherever they come from: a request, or a file."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.transcoding.duplicates import TWICE, duplicate_of, members_of
from gateway.transcoding.problems import MAX_VIOLATIONS, Violation

MAX_MEMBERS = 1_000  # of an event, and of its data; an event of usage has at most 64 properties
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


def structured(event: Any) -> CloudEvent:
    """The event of an object of JSON with exact decimals. The object is changed."""
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
    if len(attributes) > MAX_MEMBERS or (type(data) is dict and len(data) > MAX_MEMBERS):
        return CloudEvent({}, None, [Violation("", f"the event, or its data, has more than {MAX_MEMBERS} members")])
    for name, value in attributes.items():
        if type(value) not in _ATTRIBUTES and len(problems) < MAX_VIOLATIONS:
            problems.append(Violation(name[:100], "an attribute is a text, a whole number, or true or false"))
    return checked(attributes, None if data is _NO_DATA else data, problems)


def _decoded(encoded: Any, problems: list[Violation]) -> Any:
    """The JSON in data_base64."""
    try:
        return exact_json(b64decode(encoded, validate=True))
    except DuplicateKey as error:
        problems.append(Violation("data_base64", f"{error.path}: {TWICE}"))
        return None
    except (ValueError, TypeError, RecursionError):
        problems.append(Violation("data_base64", "it is not JSON in base64"))
        return None


def checked(attributes: Mapping[str, Any], data: Any, problems: list[Violation]) -> CloudEvent:
    """The event with these attributes, and what else is wrong with it."""
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


class DuplicateKey(ValueError):
    """An object of JSON has a key twice. path: of the key."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: {TWICE}")
        self.path = path


def exact_json(text: bytes) -> Any:
    """The JSON value of a text, with exact decimals. Raises DuplicateKey, another ValueError, and RecursionError."""
    value = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    if (twice := duplicate_of(text, members_of(value))) is not None:
        raise DuplicateKey(twice)
    return value


def _no_constant(name: str) -> None:
    """Refuses NaN and infinity, which JSON does not have. Raises ValueError."""
    raise ValueError(f"{name} is no number of JSON")
