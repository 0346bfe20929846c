"""Keys that an object of JSON has twice. Parsers keep the last value, and a part of the request is lost unseen."""

import json
from decimal import Decimal
from typing import Any

TWICE = "the key is there twice in one object: write it once"
MAX_SHOWN = 100  # characters of a key in a path

_SPACE = b" \t\r\n"


def duplicate_of(body: bytes, members: int) -> str | None:
    """The path of the first key that an object has twice; None if there is none. members: of all objects, as parsed.

    A quote and a colon follow each other after each key, and hardly anywhere else. Only where their number is not
    that of the members, the text is parsed again, which takes much longer. Raises ValueError for what is no JSON.
    """
    return None if body.translate(None, _SPACE).count(b'":') == members else _duplicate_in(body)


def members_of(value: Any) -> int:
    """The members of all objects in a JSON value."""
    found = 0
    inner = value
    if type(value) is dict:
        found, inner = len(value), value.values()
    elif type(value) is not list:
        return 0
    for each in inner:
        if type(each) is dict or type(each) is list:
            found += members_of(each)
    return found


def _duplicate_in(body: bytes) -> str | None:
    twice: list[tuple[dict[str, Any], str]] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.append((found, _first_twice([key for key, _ in pairs])))
        return found

    value = json.loads(body, object_pairs_hook=noted, parse_float=Decimal)
    if not twice:
        return None
    return _path_in(value, {id(found): key for found, key in twice})


def _first_twice(keys: list[str]) -> str:
    seen = set[str]()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    raise AssertionError("no key is there twice")


def _path_in(value: Any, twice: dict[int, str]) -> str | None:
    """The path of the first of these keys, by the ids of their objects."""
    waiting: list[tuple[Any, str]] = [(value, "")]
    while waiting:
        each, path = waiting.pop()
        if type(each) is dict:
            if (key := twice.get(id(each))) is not None:
                return _joined(path, key)
            inner = [(one, _joined(path, name)) for name, one in each.items() if type(one) in (dict, list)]
        else:
            inner = [(one, f"{path}[{index}]") for index, one in enumerate(each) if type(one) in (dict, list)]
        waiting.extend(reversed(inner))
    return None


def _joined(path: str, key: str) -> str:
    return f"{path}.{key[:MAX_SHOWN]}" if path else key[:MAX_SHOWN]
