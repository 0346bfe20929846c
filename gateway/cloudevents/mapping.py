"""What of a CloudEvent becomes which field of a usage event: by a convention, or by rules in a file."""

import hashlib
import json
from binascii import b2a_base64
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gateway.cloudevents.events import CloudEvent
from gateway.transcoding.problems import Violation
from gateway.transcoding.times import parse_timestamp

ID_PREFIX = "ce_"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
DECIMAL_PLACES = 18
MAX_CHOSEN = 1_000  # pairs of a type and a source whose rule is kept
# The fields of a usage event that a rule can set, and where each comes from where a rule does not say.
CONVENTION: AnyMapping[str, Any] = {
    "metric_id": "type",
    "event_name": None,
    "customer_id": "subject",
    "subscription_id": "data.subscription_id",
    "quantity": {"path": "data.quantity", "default": "1"},
    "cost": "data.cost",
    "currency": "data.currency",
    "reservation_id": "data.reservation_id",
    "event_time": "time",
}
_MATCHERS = ("types", "sources")
_RULE_KEYS = (*CONVENTION, *_MATCHERS, "properties", "other_data")
_SHOWN = {bool: "true or false", dict: "an object", list: "a list"}


class BadMapping(Exception):
    """The file of the mapping cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from: an attribute, a member of data by its path, or a constant. default: where it is
    unset.
    """

    attribute: str = ""
    path: tuple[str, ...] = ()
    constant: str | None = None
    default: str | None = None

    def value(self, attributes: AnyMapping[str, Any], data: Any) -> Any:
        """The value of an event with these attributes and this data; None where there is none."""
        if self.constant is not None:
            return self.constant
        if self.attribute:
            return attributes.get(self.attribute, self.default)
        for name in self.path:
            if type(data) is not dict:
                return self.default
            data = data.get(name)
        return self.default if data is None else data

    @property
    def name(self) -> str:
        """Where it is in the event, for messages."""
        return self.attribute or ".".join(("data", *self.path))


@dataclass(frozen=True)
class Rule:
    """The mapping of some events.

    types, sources: patterns with * and ?, of which one has to match. fields: by the fields of a usage event.
    properties: by their keys. other_data: whether the other members of data that are no objects are properties, too.
    """

    types: tuple[str, ...]
    sources: tuple[str, ...]
    fields: AnyMapping[str, Source]
    properties: AnyMapping[str, Source]
    other_data: bool

    @property
    def used(self) -> frozenset[str]:
        """The members at the top of data that fields and properties use."""
        return frozenset(
            source.path[0] for source in (*self.fields.values(), *self.properties.values()) if source.path
        )

    def matches(self, kind: str, source: str) -> bool:
        """Whether the rule is for events of this type and source."""
        return any(fnmatchcase(kind, one) for one in self.types) and any(
            fnmatchcase(source, one) for one in self.sources
        )


class _Compiled:
    """A rule as what is done for each event.

    fields: of each the name; the attribute with its value, or the member at the top of data, both empty for another
    source; its default; its source; the reader of a value; and whether a text is its value unread.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.used = rule.used
        self.fields = [
            (
                field,
                where.attribute,
                where.path[0] if len(where.path) == 1 else "",
                where.default,
                where,
                _READERS.get(field, _text),
                field not in _READERS or _READERS[field] is _amount,
            )
            for field, where in rule.fields.items()
        ]


class Mapping:
    """The rules, of which the first that matches an event makes its usage event."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [_Compiled(rule) for rule in rules]
        self._chosen: dict[tuple[str, str], _Compiled | None] = {}

    def arguments(self, event: CloudEvent) -> tuple[dict[str, Any], list[Violation]]:
        """The arguments of a UsageEvent, and what is wrong with the event, by its own names."""
        if event.problems:
            return {}, event.problems
        attributes, data = event.attributes, event.data
        source = attributes["source"]
        chosen = self._rule_of(attributes["type"], source)
        if chosen is None:
            return {}, [Violation("type", "no rule of the mapping is for this type and source")]
        problems: list[Violation] = []
        found: dict[str, Any] = {"event_id": event_id(source, attributes["id"])}
        has_members = type(data) is dict
        for field, attribute, member, default, where, read, takes_texts in chosen.fields:
            if attribute:
                value = attributes.get(attribute, default)
            elif member:
                value = data.get(member) if has_members else None
                if value is None:
                    value = default
            else:
                value = where.value(attributes, data)
            if value is None:
                if field in _MISSING:
                    problems.append(Violation(where.name, _MISSING[field]))
            elif takes_texts and type(value) is str:
                found[field] = value
            else:
                try:
                    found[field] = read(value)
                except ValueError as error:
                    problems.append(Violation(where.name, str(error)))
        properties = _properties(chosen, attributes, data, problems)
        if properties:
            found["properties"] = properties
        return found, problems

    def rule(self, kind: str, source: str) -> Rule | None:
        """The rule of events of this type and source; None: there is none."""
        chosen = self._rule_of(kind, source)
        return None if chosen is None else chosen.rule

    def _rule_of(self, kind: str, source: str) -> _Compiled | None:
        """The first rule that matches. Events have few types and sources; callers could invent any number of them."""
        key = (kind, source)
        if key not in self._chosen:
            if len(self._chosen) >= MAX_CHOSEN:
                self._chosen.clear()
            self._chosen[key] = next((each for each in self._rules if each.rule.matches(kind, source)), None)
        return self._chosen[key]


_MISSING = {
    "customer_id": "it is required: it names the customer",
    "event_time": "it is required: an event that is sent again must have the same time, or it counts twice",
}


def event_id(source: str, event_id: str) -> str:
    """The id of the usage event of a CloudEvent: of its source and its id together, 46 characters.

    A digest, because both can be of any length and have any character. The length of the source is a part of it, so
    that no two pairs run together.
    """
    named = source.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(b"%d:%s%s" % (len(named), named, event_id.encode("utf-8", "surrogatepass"))).digest()
    # Without the sign that fills it up. base64's function for this alphabet takes twice as long.
    return ID_PREFIX + b2a_base64(digest, newline=False)[:43].translate(_URL_SAFE).decode()


def _properties(
    chosen: _Compiled, attributes: AnyMapping[str, Any], data: Any, problems: list[Violation]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, where in chosen.rule.properties.items():
        value = where.value(attributes, data)
        if value is None:
            continue
        try:
            found[key] = _text(value)
        except ValueError as error:
            problems.append(Violation(where.name, str(error)))
    if chosen.rule.other_data and type(data) is dict:
        used = chosen.used
        for key, value in data.items():
            # Objects and lists have no form as a property. An event may have them for other readers.
            if key in used or key in found or value is None or type(value) in (dict, list):
                continue
            found[key] = _text(value)
    return found


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    if type(value) is Decimal:
        return plain_number(value)
    raise ValueError(f"it is {_SHOWN.get(type(value), 'null')}; it must be a text or a number")


def _amount(value: Any) -> str:
    """A quantity or a cost, exact: a text in the form of the contract, or a number."""
    if type(value) is bool:
        raise ValueError("it is true or false; it must be a number")
    return _text(value)


def plain_number(value: Decimal) -> str:
    """A number without an exponent. What has more than 60 digits is left as it is, and refused by the server."""
    if not -60 < value.adjusted() < 60:
        return str(value)
    text = f"{value:f}"
    if "." in text:
        whole, _, fraction = text.partition(".")
        shortened = fraction.rstrip("0") if len(fraction) > DECIMAL_PLACES else fraction
        text = f"{whole}.{shortened}" if shortened else whole
    return text


def _time(value: Any) -> dict[str, int]:
    if type(value) is not str:
        raise ValueError("it must be a time such as 2026-01-31T12:00:00Z")
    seconds, nanos = parse_timestamp(value)
    return {"seconds": seconds, "nanos": nanos}


_READERS = {"quantity": _amount, "cost": _amount, "event_time": _time}


def default_mapping() -> Mapping:
    """The convention: the type is the metric, the subject the customer, and data has the rest."""
    return Mapping([_rule({}, 0)])


def load_mapping(path: Path) -> Mapping:
    """The mapping of a file in JSON. Raises BadMapping."""
    try:
        stated = json.loads(path.read_bytes())
    except OSError as error:
        raise BadMapping(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadMapping(f"{path} is not JSON: {error}") from None
    try:
        return parse_mapping(stated)
    except BadMapping as error:
        raise BadMapping(f"{path}: {error}") from None


def parse_mapping(stated: Any) -> Mapping:
    """The mapping of an object with a list of rules. Raises BadMapping."""
    rules = stated.get("rules") if type(stated) is dict else None
    if type(rules) is not list or not rules or set(stated) != {"rules"}:
        raise BadMapping('it is no mapping: write {"rules": [{"types": ["com.acme.*"], …}, …]}')
    return Mapping([_rule(rule, number) for number, rule in enumerate(rules)])


def _rule(stated: Any, number: int) -> Rule:
    at = f"rules[{number}]"
    if type(stated) is not dict:
        raise BadMapping(f"{at} is no object")
    for key in stated:
        if key not in _RULE_KEYS:
            raise BadMapping(f"{at} has {key!r}, which is none of {', '.join(_RULE_KEYS)}")
    fields = {**CONVENTION, **{key: value for key, value in stated.items() if key in CONVENTION}}
    if "event_name" in stated and "metric_id" not in stated:
        fields["metric_id"] = None
    properties = stated.get("properties", {})
    if type(properties) is not dict:
        raise BadMapping(f"{at}.properties is no object")
    other_data = stated.get("other_data", True)
    if type(other_data) is not bool:
        raise BadMapping(f"{at}.other_data must be true or false")
    return Rule(
        _patterns(stated, "types", at),
        _patterns(stated, "sources", at),
        {key: _source(value, f"{at}.{key}") for key, value in fields.items() if value is not None},
        {key: _source(value, f"{at}.properties.{key}") for key, value in properties.items()},
        other_data,
    )


def _patterns(stated: AnyMapping[str, Any], key: str, at: str) -> tuple[str, ...]:
    patterns = stated.get(key, ["*"])
    if type(patterns) is not list or not patterns or not all(type(one) is str for one in patterns):
        raise BadMapping(f'{at}.{key} must be a list of patterns such as ["com.acme.*"]')
    return tuple(patterns)


def _source(stated: Any, at: str) -> Source:
    """A path such as "subject" or "data.usage.tokens"; or an object with a path and a default, or with a value."""
    if type(stated) is dict and set(stated) == {"value"} and type(stated["value"]) is str:
        return Source(constant=stated["value"])
    default = None
    if type(stated) is dict and set(stated) == {"path", "default"} and type(stated["default"]) is str:
        stated, default = stated["path"], stated["default"]
    if type(stated) is not str or not all(stated.split(".")):
        raise BadMapping(
            f'{at} must be a path such as "subject" or "data.usage.tokens", {{"path": …, "default": "…"}} or'
            ' {"value": "…"}'
        )
    first, *rest = stated.split(".")
    if first == "data":
        return Source(path=tuple(rest), default=default)
    if rest:
        raise BadMapping(f"{at}: {first!r} is an attribute, which has no members; only data has")
    return Source(attribute=first, default=default)
