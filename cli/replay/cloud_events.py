"""CloudEvents of a file as usage events: with the mapping, and the ids, of the HTTP gateway.

The events of a file have few shapes, that is, names of attributes and of members of data. What of an event becomes
which field follows from its shape and its rule, and is found out once for each. What cannot be read in that way, such
as an event with an error, is read by the gateway's own functions: both give the same.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from cli.replay import encoding
from cli.replay.compiled import Encoded, ToEvent
from cli.replay.fields import MAX_SHAPES
from cli.replay.mapping import RowProblem
from cli.replay.rows import Row
from gateway.cloudevents.events import structured
from gateway.cloudevents.mapping import Mapping, Source, event_id, plain_number
from gateway.transcoding.times import parse_timestamp

_DAY = 86_400  # seconds
_TAGS = {
    "event_id": encoding.EVENT_ID,
    "customer_id": encoding.CUSTOMER,
    "subscription_id": encoding.SUBSCRIPTION,
    "metric_id": encoding.METRIC,
    "quantity": encoding.QUANTITY,
    "cost": encoding.COST,
    "currency": encoding.CURRENCY,
    "event_name": encoding.NAME,
    "reservation_id": encoding.RESERVATION,
}
_NEEDED = ("customer_id", "event_time")
_JSON = "application/json"


class _Shape(NamedTuple):
    """How the events of one shape and rule are read.

    time: the name of the time; time_in_data: whether data has it, and not an attribute. fixed: fields that are equal
    in all. texts, properties: of each its tag or its key, its name, and whether data has it. others: attributes that
    become no text.
    """

    time: str
    time_in_data: bool
    fixed: bytes
    texts: list[tuple[bytes, str, bool]]
    properties: list[tuple[bytes, str, bool]]
    others: list[str]


class _OtherValue(Exception):
    """An event has a value that only the gateway's functions read."""


def of_cloud_events(mapping: Mapping, shift_days: int) -> ToEvent:
    """The function that makes a usage event of a row with a CloudEvent. It raises RowProblem.

    The values of the row are changed.
    """
    shift = shift_days * _DAY
    field, entry, time_field = encoding.field, encoding.entry, encoding.time

    @lru_cache(MAX_SHAPES)
    def shape_of(kind: str, source: str, names: tuple[str, ...], members: tuple[str, ...]) -> _Shape | None:
        return _shape(mapping, kind, source, names, members)

    def of_shape(event: dict[str, Any]) -> Encoded:
        """The usage event of an event without an error. Raises others than RowProblem where it may have one."""
        data, kind, source, stated_id = event["data"], event["type"], event["source"], event["id"]
        if type(data) is not dict or type(stated_id) is not str or not stated_id or event["specversion"] != "1.0":
            raise _OtherValue
        shape = shape_of(kind, source, tuple(event), tuple(data))
        if shape is None:
            raise _OtherValue
        when, when_in_data, fixed, texts, properties, others = shape
        for name in others:
            if type(event[name]) is not str or (name == "datacontenttype" and event[name] != _JSON):
                raise _OtherValue
        parts = [field(encoding.EVENT_ID, event_id(source, stated_id)), fixed]
        for tag, name, in_data in texts:
            value = data[name] if in_data else event[name]
            if type(value) is not str:
                value = _number(value, in_data)
            if value:
                parts.append(field(tag, value))
        for key, name, in_data in properties:
            value = data[name] if in_data else event[name]
            parts.append(entry(key, value if type(value) is str else _number(value, in_data)))
        seconds, nanos = parse_timestamp(data[when] if when_in_data else event[when])
        seconds += shift
        parts.append(time_field(seconds, nanos))
        return Encoded(b"".join(parts), seconds)

    def to_event(row: Row) -> Encoded:
        event = row.values
        assert type(event) is dict
        try:
            return of_shape(event)
        except (_OtherValue, LookupError, TypeError, ValueError):
            return _checked(mapping, event, shift)

    return to_event


def _checked(mapping: Mapping, event: dict[str, Any], shift: int) -> Encoded:
    """The usage event of any event, by the gateway's functions. Raises RowProblem."""
    arguments, problems = mapping.arguments(structured(event))
    if problems:
        first = problems[0]
        raise RowProblem(f"{first.path}: {first.description}" if first.path else first.description)
    time, properties = arguments.pop("event_time"), arguments.pop("properties", {})
    seconds = time["seconds"] + shift
    parts = [encoding.field(_TAGS[name], text) for name, text in arguments.items() if text]
    parts.append(encoding.time(seconds, time["nanos"]))
    parts += [encoding.entry(encoding.prefix(key), value) for key, value in properties.items()]
    return Encoded(b"".join(parts), seconds)


def _number(value: Any, in_data: bool) -> str:
    """A number of data as a text. Raises _OtherValue."""
    if in_data and type(value) is int:
        return str(value)
    if in_data and type(value) is Decimal:
        return plain_number(value)
    raise _OtherValue


def _shape(
    mapping: Mapping, kind: str, source: str, names: tuple[str, ...], members: tuple[str, ...]
) -> _Shape | None:
    """How such events are read; None: by the gateway's functions."""
    rule = mapping.rule(kind, source) if kind and source else None
    if rule is None or "data_base64" in names:
        return None
    fields = {name: _place(where, names, members) for name, where in rule.fields.items()}
    kept = {key: _place(where, names, members) for key, where in rule.properties.items()}
    time = fields.pop("event_time", None)
    if type(time) is not tuple or not fields.get("customer_id") or None in (*fields.values(), *kept.values()):
        return None
    fixed = b"".join(encoding.optional(_TAGS[name], one) for name, one in fields.items() if isinstance(one, str))
    texts = [(_TAGS[name], *one) for name, one in fields.items() if isinstance(one, tuple)]
    properties = [(encoding.prefix(key), *one) for key, one in kept.items() if isinstance(one, tuple)]
    for key, one in kept.items():
        if isinstance(one, str) and one:
            fixed += encoding.entry(encoding.prefix(key), one)
    if rule.other_data:
        others = [name for name in members if name not in rule.used]
        if any(name in kept for name in others):
            return None
        properties += [(encoding.prefix(name), name, True) for name in others]
    read = {name for _, name, in_data in (*texts, *properties) if not in_data} | {
        "type",
        "source",
        "id",
        "specversion",
    }
    return _Shape(*time, fixed, texts, properties, [one for one in names if one not in read and one != "data"])


def _place(where: Source, names: tuple[str, ...], members: tuple[str, ...]) -> tuple[str, bool] | str | None:
    """The name of a value and whether it is a member of data; or the value of all events; None: neither."""
    if where.constant is not None:
        return where.constant or None
    if where.default == "":
        return None
    if where.attribute:
        return (where.attribute, False) if where.attribute in names else where.default or ""
    if len(where.path) != 1:
        return None
    return (where.path[0], True) if where.path[0] in members else where.default or ""
