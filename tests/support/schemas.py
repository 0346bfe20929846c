"""A strict and complete check of JSON against the schemas of docs/events.

It knows the keywords that those schemas use, and refuses any other instead of ignoring it.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).resolve().parents[2] / "docs" / "events"

# The file that describes each type of event.
FILES: Mapping[str, str] = {
    "alert.reached": "alert",
    "alert.resolved": "alert",
    "alert.disabled": "alert_disabled",
    "recharge.requested": "recharge",
    "recharge.expired": "recharge",
    "recharge.canceled": "recharge",
    "recharge.policy_disabled": "recharge",
    "endpoint.failing": "operator",
    "endpoint.disabled": "operator",
    "endpoint.recovered": "operator",
    "delivery.exhausted": "operator",
    "evaluation.failed": "operator",
    "limit.refused": "operator",
    "endpoint.test": "operator",
}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "null": type(None),
}
_WORDS = {"$schema", "$defs", "title", "description"}


class Mismatch(AssertionError):
    """The JSON is not valid for its schema."""


@cache
def schema(name: str) -> dict[str, Any]:
    """A schema of docs/events."""
    read: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return read


def check_body(body: dict[str, Any]) -> None:
    """Raises Mismatch when a sent body is not valid for the schema of its type."""
    check(body, schema(FILES[body["type"]]))


def check(value: Any, whole: dict[str, Any], path: str = "$", part: dict[str, Any] | None = None) -> None:
    """Raises Mismatch when `value` is not valid for the schema, or has a field that the schema does not describe."""
    part = whole if part is None else part
    for keyword, wanted in part.items():
        if keyword in _WORDS or keyword == "properties":
            continue
        fine = True
        match keyword:
            case "$ref":
                check(value, whole, path, whole["$defs"][wanted.removeprefix("#/$defs/")])
            case "anyOf":
                fine = _matches_one(value, whole, path, wanted)
            case "type":
                fine = isinstance(value, _TYPES[wanted]) and not (wanted == "integer" and isinstance(value, bool))
            case "const":
                fine = value == wanted
            case "enum":
                fine = value in wanted
            case "pattern":
                fine = re.search(wanted, value) is not None
            case "format":
                assert wanted == "date-time"
                fine = datetime.fromisoformat(value).tzinfo is not None
            case "minimum":
                fine = value >= wanted
            case "minItems":
                fine = len(value) >= wanted
            case "maxItems":
                fine = len(value) <= wanted
            case "required":
                fine = set(wanted) <= set(value)
            case "items":
                for index, item in enumerate(value):
                    check(item, whole, f"{path}[{index}]", wanted)
            case _:
                raise AssertionError(f"the checker does not know {keyword!r}")
        if not fine:
            raise Mismatch(f"{path}: {value!r} is not as {keyword} {wanted!r} says")
    if "properties" in part:
        for name, item in value.items():
            if name not in part["properties"]:
                raise Mismatch(f"{path}.{name} is not described")
            check(item, whole, f"{path}.{name}", part["properties"][name])


def _matches_one(value: Any, whole: dict[str, Any], path: str, parts: list[dict[str, Any]]) -> bool:
    for part in parts:
        try:
            check(value, whole, path, part)
        except Mismatch:
            continue
        return True
    return False
