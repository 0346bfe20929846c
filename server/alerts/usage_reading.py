"""Checks the events of a request. A bad event is rejected by its index, and the others are counted."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from google.protobuf.unknown_fields import UnknownFieldSet

from engine.ingest.batches import Outcome
from evaluator.amounts import AmountError, parse_decimal, parse_decimals
from evaluator.events import UsageEvent
from evaluator.routing import FUTURE_TOLERANCE
from generated.tidemark.v1 import error_reason_pb2, usage_pb2
from runtime.turns import Slices
from server.calls.errors import AlreadyExists, ApiError, FailedPrecondition, FieldViolation, Internal, InvalidArgument
from server.calls.validation import EPOCH, MAX_ID_LENGTH, Violations, currency_problem, id_problem, to_datetime

AT_ONCE = 100  # events that are checked without a pause
MAX_PROPERTIES = 64
MAX_PROPERTY_LENGTH = 256  # characters of a value

# Bytes of an answer's rejections that are complete; the rejections after them are short. A client accepts 4 MiB by
# default, and a client that cannot read the answer to a batch would send it again for ever. 5,000 short rejections
# have less than 2 MiB, and together with the complete ones less than the 3 MiB for the rejections of an answer.
MAX_FULL_REJECTIONS = 1024 * 1024
SHORT_ID_LENGTH = 40  # characters of the event_id in a short rejection; a UUID has 36

# Ids that were checked before. Customers and metrics repeat; event ids do not, so they are not kept.
_CHECKED_IDS: set[str] = set()
_MAX_CHECKED_IDS = 500_000


@dataclass(slots=True)
class Reading:
    """The checked events of one request with their indexes, and the rejected ones with their errors."""

    events: list[UsageEvent] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    rejected: list[tuple[int, ApiError]] = field(default_factory=list)


class Reader:
    """Checks events. retention: an older event is rejected, in whatever billing period it lies."""

    def __init__(self, retention: timedelta) -> None:
        self._retention = retention

    async def read(self, messages: Sequence[usage_pb2.UsageEvent], now: datetime, slices: Slices) -> Reading:
        """Checks every event of a request against `now`: it can be too old, or too far in the future.

        A large request is checked in slices, between which other calls run.
        """
        reading = Reading()
        earliest, latest = now - self._retention, now + FUTURE_TOLERANCE
        if len(messages) <= AT_ONCE:
            if messages:
                self._read(list(messages), 0, earliest, latest, reading)
            return reading
        await slices.begin()
        for first in range(0, len(messages), AT_ONCE):
            self._read(list(messages[first : first + AT_ONCE]), first, earliest, latest, reading)
            await slices.pause()
        return reading

    def _read(
        self, messages: list[usage_pb2.UsageEvent], first: int, earliest: datetime, latest: datetime, reading: Reading
    ) -> None:
        """Checks messages together. Divides them when one of them is bad, until each bad one is found.

        Divides n messages into parts of √n, so that there are few passes when many are bad.
        """
        events = _read_valid(messages, earliest, latest)
        if events is not None:
            reading.events += events
            reading.indexes += range(first, first + len(events))
        elif len(messages) == 1:
            reading.rejected.append((first, _explain(first, messages[0], earliest, latest)))
        else:
            size = math.isqrt(len(messages))
            for start in range(0, len(messages), size):
                self._read(messages[start : start + size], first + start, earliest, latest, reading)


async def rejections(
    messages: Sequence[usage_pb2.UsageEvent], reading: Reading, outcome: Outcome, slices: Slices
) -> list[usage_pb2.Rejection]:
    """The rejections of the events of a request that were not counted, by ascending index."""
    errors = dict(reading.rejected)
    for position in outcome.conflicting:
        index = reading.indexes[position]
        errors[index] = _conflict(index, reading.events[position])
    for position in outcome.too_old:
        index = reading.indexes[position]
        errors[index] = _too_old(
            index, reading.events[position].event_id, "its billing period is closed and its grace is over"
        )
    for position in outcome.unrecorded:
        index = reading.indexes[position]
        errors[index] = _unrecorded(index, reading.events[position])
    found = []
    size = 0
    await slices.begin()
    for index in sorted(errors):
        await slices.pause()
        error, event_id = errors[index], messages[index].event_id[:MAX_ID_LENGTH]
        if size > MAX_FULL_REJECTIONS:
            error, event_id = (
                type(error)(error.reason, "send fewer events in one batch for the details"),
                event_id[:SHORT_ID_LENGTH],
            )
        found.append(usage_pb2.Rejection(index=index, event_id=event_id, status=error.status()))
        size += found[-1].ByteSize()
    return found


def _read_valid(
    messages: Sequence[usage_pb2.UsageEvent], earliest: datetime, latest: datetime
) -> list[UsageEvent] | None:
    """The events, or None when one of them is bad; `_explain` then finds the cause.

    This is the hot path of every event. It works column by column: a check of a whole column costs one event little.
    """
    event_ids = [message.event_id for message in messages]
    customer_ids = [message.customer_id for message in messages]
    subscription_ids = [message.subscription_id or None for message in messages]
    metric_ids = [message.metric_id for message in messages]
    costs = [message.cost for message in messages]
    currencies = [message.currency or None for message in messages]
    # dict() of a protobuf map takes as long as all other fields together, even when the map is empty.
    properties = [
        {key: stated[key] for key in stated} if (stated := message.properties) else {} for message in messages
    ]
    stated_times = [message.event_time for message in messages]
    ids = {*customer_ids, *metric_ids, *filter(None, subscription_ids)}
    if not (
        (_are_plain(event_ids) or all(id_problem(event_id) is None for event_id in event_ids))
        and (ids <= _CHECKED_IDS or all(map(_is_valid_id, ids - _CHECKED_IDS)))
        and (not any(currencies) or all(map(_is_valid_price, costs, currencies)))
        and not any(_property_violations("", stated) for stated in properties if stated)
        and all(0 <= time.nanos < 1_000_000_000 for time in stated_times)
        and not any(map(len, map(UnknownFieldSet, messages)))
    ):
        return None
    try:
        times = [EPOCH + timedelta(0, time.seconds, time.nanos // 1000) for time in stated_times]
        quantities = parse_decimals([message.quantity for message in messages])
        exact_costs = [parse_decimal(cost) if cost else None for cost in costs]
    except (AmountError, OverflowError):
        return None
    if not earliest < min(times) <= max(times) <= latest:
        return None
    columns = (
        event_ids,
        customer_ids,
        times,
        metric_ids,
        quantities,
        subscription_ids,
        exact_costs,
        currencies,
        properties,
    )
    return list(map(UsageEvent, *columns))


def _are_plain(ids: Sequence[str]) -> bool:
    """Whether all are valid by a quick check: of the right length, printable and without spaces."""
    text = "".join(ids)
    return text.isprintable() and " " not in text and all(ids) and max(map(len, ids)) <= MAX_ID_LENGTH


def _is_valid_price(cost: str, currency: str | None) -> bool:
    return currency is None or (bool(cost) and _is_valid_currency(currency))


def _is_valid_id(text: str) -> bool:
    if id_problem(text) is not None:
        return False
    if len(_CHECKED_IDS) >= _MAX_CHECKED_IDS:
        _CHECKED_IDS.clear()
    _CHECKED_IDS.add(text)
    return True


@functools.lru_cache(maxsize=10_000)
def _is_valid_currency(currency: str) -> bool:
    return currency_problem(currency) is None


def _property_violations(path: str, properties: dict[str, str]) -> list[FieldViolation]:
    found = []
    if len(properties) > MAX_PROPERTIES:
        found.append(FieldViolation(path, f"there are {len(properties)}; an event has at most {MAX_PROPERTIES}"))
    for key, value in properties.items():
        if (key not in _CHECKED_IDS and not _is_valid_id(key)) and (problem := id_problem(key)) is not None:
            found.append(FieldViolation(path, f"the key {key[:MAX_ID_LENGTH]!r}: {problem}"))
        if len(value) > MAX_PROPERTY_LENGTH:
            problem = f"it has {len(value)} characters; a value has at most {MAX_PROPERTY_LENGTH}"
            found.append(FieldViolation(f"{path}[{key[:MAX_ID_LENGTH]!r}]", problem))
        elif not value.isprintable() and (control := Violations()).text("", value) and control.found:
            found.append(FieldViolation(f"{path}[{key[:MAX_ID_LENGTH]!r}]", control.found[0].description))
    return found


def _explain(index: int, message: usage_pb2.UsageEvent, earliest: datetime, latest: datetime) -> ApiError:
    """The error of a bad event, with all its violations; or that its time is out of bounds."""
    path = f"events[{index}]"
    check = Violations()
    # A field of a newer contract can change the meaning of the event, so the event is not counted without it.
    unknown = UnknownFieldSet(message)
    for number in sorted({unknown[position].field_number for position in range(len(unknown))}):
        check.add(path, f"it has a field with the number {number}, which this service does not know")
    check.identifier(f"{path}.event_id", message.event_id)
    check.identifier(f"{path}.customer_id", message.customer_id)
    check.identifier(f"{path}.subscription_id", message.subscription_id, required=False)
    check.identifier(f"{path}.metric_id", message.metric_id)
    check.decimal(f"{path}.quantity", message.quantity)
    if message.cost:
        check.decimal(f"{path}.cost", message.cost)
    if message.currency:
        if not message.cost:
            check.add(f"{path}.currency", "it is set without a cost")
        check.currency(f"{path}.currency", message.currency, default="")
    check.found += _property_violations(f"{path}.properties", dict(message.properties))
    if not message.HasField("event_time"):
        check.add(f"{path}.event_time", "it is required")
    else:
        check.time(f"{path}.event_time", message.event_time)
    if check.found:
        first = check.found[0]
        return InvalidArgument(
            error_reason_pb2.ERROR_REASON_EVENT_INVALID,
            f"{first.path}: {first.description}",
            metadata={"event_id": message.event_id},
            violations=check.found,
        )
    time = to_datetime(message.event_time)
    if time > latest:
        return InvalidArgument(
            error_reason_pb2.ERROR_REASON_EVENT_IN_FUTURE,
            f"{path}.event_time: {time.isoformat()} is more than 5 minutes after the time of the service",
            metadata={"event_id": message.event_id, "latest_time": latest.isoformat()},
        )
    return _too_old(index, message.event_id, f"events before {earliest.isoformat()} are not kept")


def _too_old(index: int, event_id: str, why: str) -> ApiError:
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_EVENT_TOO_OLD,
        f"events[{index}].event_time: the event is too old to be counted: {why}",
        metadata={"event_id": event_id},
    )


def _unrecorded(index: int, event: UsageEvent) -> ApiError:
    return Internal(
        error_reason_pb2.ERROR_REASON_INTERNAL,
        f"events[{index}]: the service failed to evaluate this event, and did not count it; send it again later",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )


def _conflict(index: int, event: UsageEvent) -> ApiError:
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_EVENT_CONFLICT,
        f"events[{index}].event_id: another event with the id {event.event_id!r} is counted for this customer in"
        " this calendar month (UTC); send a correction under an id of its own",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )
