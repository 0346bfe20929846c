"""Reading: the events of a request, checked so that a bad one harms nobody but itself."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.unknown_fields import UnknownFieldSet

from engine.ingest.batches import Outcome
from evaluator.amounts import AmountError, parse_decimal, parse_decimals
from evaluator.events import UsageEvent
from evaluator.routing import FUTURE_TOLERANCE
from generated.tidemark.v1 import error_reason_pb2, usage_pb2
from runtime.turns import Slices
from server.calls.errors import AlreadyExists, ApiError, FailedPrecondition, FieldViolation, Internal, InvalidArgument
from server.calls.validation import MAX_ID_LENGTH, Violations, currency_problem, id_problem, to_datetime

AT_ONCE = 100  # events that are read without a pause
MAX_PROPERTIES = 64
MAX_PROPERTY_LENGTH = 256  # characters of a value

# Bytes of an answer's rejections that are told in full; what follows is told in short. Clients take 4 MiB by default,
# and one that cannot read the answer to a batch would send it again for ever. 5,000 in short come to less than the
# 2 MiB that then remain of the 3 MiB that an answer's rejections may have.
MAX_FULL_REJECTIONS = 1024 * 1024
SHORT_ID_LENGTH = 40  # characters of an event_id that is told in short; a UUID has 36

# Ids that were found fine: the same customers and metrics come again and again. Event ids never do.
_FINE_IDS: set[str] = set()
_MAX_FINE_IDS = 500_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Reading:
    """The events of one request that can be counted, where each stood, and why the others cannot."""

    events: list[UsageEvent] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    rejected: list[tuple[int, ApiError]] = field(default_factory=list)


class Reader:
    """Reads events. retention: an event older than that is refused, whatever its billing period."""

    def __init__(self, retention: timedelta) -> None:
        self._retention = retention

    async def read(self, messages: Sequence[usage_pb2.UsageEvent], now: datetime, slices: Slices) -> Reading:
        """Checks every event of a request; `now` decides which are too old or too far ahead.

        A large request is read in slices, between which other calls go on.
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
        """Reads messages at once; when anything is wrong with them in ever smaller parts, down to the bad ones.

        Parts of the root of their number, so that few passes are made where many are bad.
        """
        events = _read_fine(messages, earliest, latest)
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
    """What is said of each event of a request that was not counted, by ascending index."""
    errors = dict(reading.rejected)
    for position in outcome.conflicting:
        index = reading.indexes[position]
        errors[index] = _conflict(index, reading.events[position])
    for position in outcome.too_old:
        index = reading.indexes[position]
        errors[index] = _too_old(index, reading.events[position].event_id, "its billing period is closed for good")
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
                type(error)(error.reason, "send fewer events at once to be told more"),
                event_id[:SHORT_ID_LENGTH],
            )
        found.append(usage_pb2.Rejection(index=index, event_id=event_id, status=error.status()))
        size += found[-1].ByteSize()
    return found


def _read_fine(
    messages: Sequence[usage_pb2.UsageEvent], earliest: datetime, latest: datetime
) -> list[UsageEvent] | None:
    """The events, or None when anything is wrong with any of them; `_explain` then finds out what.

    Every event goes this way, so it goes column by column: what is asked of a whole column costs one event little.
    """
    event_ids = [message.event_id for message in messages]
    customer_ids = [message.customer_id for message in messages]
    subscription_ids = [message.subscription_id or None for message in messages]
    metric_ids = [message.metric_id for message in messages]
    costs = [message.cost for message in messages]
    currencies = [message.currency or None for message in messages]
    # dict() of a protobuf map, be it empty, takes as long as reading all the other fields.
    properties = [
        {key: stated[key] for key in stated} if (stated := message.properties) else {} for message in messages
    ]
    stated_times = [message.event_time for message in messages]
    ids = {*customer_ids, *metric_ids, *filter(None, subscription_ids)}
    if not (
        (_are_plain(event_ids) or all(id_problem(event_id) is None for event_id in event_ids))
        and (ids <= _FINE_IDS or all(map(_is_fine, ids - _FINE_IDS)))
        and (not any(currencies) or all(map(_is_fine_price, costs, currencies)))
        and not any(_property_violations("", stated) for stated in properties if stated)
        and all(0 <= time.nanos < 1_000_000_000 for time in stated_times)
        and not any(map(len, map(UnknownFieldSet, messages)))
    ):
        return None
    try:
        times = [_EPOCH + timedelta(0, time.seconds, time.nanos // 1000) for time in stated_times]
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
    """Whether they are ids beyond doubt: of the right length, printable and without blanks."""
    text = "".join(ids)
    return text.isprintable() and " " not in text and all(ids) and max(map(len, ids)) <= MAX_ID_LENGTH


def _is_fine_price(cost: str, currency: str | None) -> bool:
    return currency is None or (bool(cost) and _is_fine_currency(currency))


def _is_fine(text: str) -> bool:
    if id_problem(text) is not None:
        return False
    if len(_FINE_IDS) >= _MAX_FINE_IDS:
        _FINE_IDS.clear()
    _FINE_IDS.add(text)
    return True


@functools.lru_cache(maxsize=10_000)
def _is_fine_currency(currency: str) -> bool:
    return currency_problem(currency) is None


def _property_violations(path: str, properties: dict[str, str]) -> list[FieldViolation]:
    found = []
    if len(properties) > MAX_PROPERTIES:
        found.append(FieldViolation(path, f"there are {len(properties)}; an event has at most {MAX_PROPERTIES}"))
    for key, value in properties.items():
        if (key not in _FINE_IDS and not _is_fine(key)) and (problem := id_problem(key)) is not None:
            found.append(FieldViolation(path, f"the key {key[:MAX_ID_LENGTH]!r}: {problem}"))
        if len(value) > MAX_PROPERTY_LENGTH:
            problem = f"it has {len(value)} characters; a value has at most {MAX_PROPERTY_LENGTH}"
            found.append(FieldViolation(f"{path}[{key[:MAX_ID_LENGTH]!r}]", problem))
        elif not value.isprintable() and (control := Violations()).text("", value) and control.found:
            found.append(FieldViolation(f"{path}[{key[:MAX_ID_LENGTH]!r}]", control.found[0].description))
    return found


def _explain(index: int, message: usage_pb2.UsageEvent, earliest: datetime, latest: datetime) -> ApiError:
    """Everything that is wrong with an event that `_read` refused, or its time is out of bounds."""
    path = f"events[{index}]"
    check = Violations()
    # A field of a younger contract may well decide what the event means; half of an event is not counted.
    unknown = UnknownFieldSet(message)
    for number in sorted({unknown[place].field_number for place in range(len(unknown))}):
        check.add(path, f"it has a field of number {number}, which this service does not know")
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
            f"{path}.event_time: {time.isoformat()} is more than 5 minutes ahead of the service's clock",
            metadata={"event_id": message.event_id, "latest_time": latest.isoformat()},
        )
    return _too_old(index, message.event_id, f"nothing before {earliest.isoformat()} is kept")


def _too_old(index: int, event_id: str, why: str) -> ApiError:
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_EVENT_TOO_OLD,
        f"events[{index}].event_time: the event is too old to be counted: {why}",
        metadata={"event_id": event_id},
    )


def _unrecorded(index: int, event: UsageEvent) -> ApiError:
    return Internal(
        error_reason_pb2.ERROR_REASON_INTERNAL,
        f"events[{index}]: the service failed to record what this event changes, and counted nothing of it; send it"
        " again later",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )


def _conflict(index: int, event: UsageEvent) -> ApiError:
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_EVENT_CONFLICT,
        f"events[{index}].event_id: another event with the id {event.event_id!r} is counted for this customer in"
        " this calendar month (UTC); send a correction under an id of its own",
        metadata={"event_id": event.event_id, "customer_id": event.customer_id},
    )
