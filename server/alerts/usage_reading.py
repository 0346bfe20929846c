"""The reading of usage requests: every event is checked on its own, so that a bad one does not affect the others.

The native decoder reads the events of plain requests (see `usage_requests`) and makes the same events as this module.
What it does not read is read here, so this module decides what is valid.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from evaluator.amounts import AmountError, parse_decimal, parse_decimals
from evaluator.events import SettlingEvent, UsageEvent
from evaluator.routing import FUTURE_TOLERANCE
from generated.tidemark.v1 import usage_pb2
from runtime.turns import Slices
from server.alerts.event_errors import in_future, invalid, too_many_fields, too_old
from server.alerts.split_events import MAX_EVENT_FIELDS, SplitEvents
from server.alerts.usage_requests import EncodedEvents
from server.alerts.valid_ids import ValidIds
from server.calls.errors import ApiError, FieldViolation
from server.calls.validation import MAX_ID_LENGTH, Violations, currency_problem, id_problem, to_datetime

AT_ONCE = 100  # events that are read without a pause
MAX_PROPERTIES = 64
MAX_PROPERTY_LENGTH = 256  # characters of a value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class RejectedEvent:
    """An event that is not valid. event_id: as it was sent, cut to the length of an id."""

    index: int
    event_id: str
    error: ApiError


@dataclass(slots=True)
class ParsedBatch:
    """The valid events of one request, and the others, each in the order of the request."""

    events: list[UsageEvent] = field(default_factory=list)
    rejected: list[RejectedEvent] = field(default_factory=list)


class Reader:
    """Checks events. retention: an older event is rejected, also when its billing period is still open."""

    def __init__(self, retention: timedelta) -> None:
        self._retention = retention
        self._ids = ValidIds()

    async def read(
        self, events: EncodedEvents | SplitEvents | Sequence[usage_pb2.UsageEvent], now: datetime, slices: Slices
    ) -> ParsedBatch:
        """Checks every event of a request; `now` decides which are too old or too far ahead.

        A large request is read in slices, between which other calls go on.
        """
        earliest, latest = now - self._retention, now + FUTURE_TOLERANCE
        if isinstance(events, EncodedEvents):
            read = await events.read(earliest, latest, slices)
            if read is not None:
                return ParsedBatch(read)
            events = events.for_protobuf()
        if isinstance(events, SplitEvents):
            return await self._read_parts(events, earliest, latest, slices)
        return await self._read_messages(events, earliest, latest, slices)

    async def _read_parts(
        self, events: SplitEvents, earliest: datetime, latest: datetime, slices: Slices
    ) -> ParsedBatch:
        parsed = ParsedBatch()
        await slices.begin()
        for part in events.parts():
            if part.too_many:
                event_id = part.events[0].event_id[:MAX_ID_LENGTH]
                error = too_many_fields(part.first, event_id, MAX_EVENT_FIELDS, MAX_PROPERTIES)
                parsed.rejected.append(RejectedEvent(part.first, event_id, error))
            else:
                self._read(list(part.events), part.first, earliest, latest, parsed)
            await slices.pause()
        return parsed

    async def _read_messages(
        self, messages: Sequence[usage_pb2.UsageEvent], earliest: datetime, latest: datetime, slices: Slices
    ) -> ParsedBatch:
        parsed = ParsedBatch()
        if len(messages) <= AT_ONCE:
            if messages:
                self._read(list(messages), 0, earliest, latest, parsed)
            return parsed
        await slices.begin()
        for first in range(0, len(messages), AT_ONCE):
            self._read(list(messages[first : first + AT_ONCE]), first, earliest, latest, parsed)
            await slices.pause()
        return parsed

    def _read(
        self,
        messages: list[usage_pb2.UsageEvent],
        first: int,
        earliest: datetime,
        latest: datetime,
        parsed: ParsedBatch,
    ) -> None:
        """Parses messages at once; if anything is wrong with them in ever smaller parts, down to the bad ones.

        The size of a part is the root of their number, so that few passes are made where many are bad.
        """
        events = self._parse_valid(messages, earliest, latest)
        if events is not None:
            parsed.events += events
        elif len(messages) == 1:
            error = self._explain(first, messages[0], earliest, latest)
            parsed.rejected.append(RejectedEvent(first, messages[0].event_id[:MAX_ID_LENGTH], error))
        else:
            size = math.isqrt(len(messages))
            for start in range(0, len(messages), size):
                self._read(messages[start : start + size], first + start, earliest, latest, parsed)

    def _parse_valid(
        self, messages: Sequence[usage_pb2.UsageEvent], earliest: datetime, latest: datetime
    ) -> list[UsageEvent] | None:
        """The events, or None when anything is wrong with any of them; `_explain` then finds out what.

        It goes column by column, because a check of a whole column costs each event little.
        """
        event_ids = [message.event_id for message in messages]
        customer_ids = [message.customer_id for message in messages]
        subscription_ids = [message.subscription_id or None for message in messages]
        metric_ids = [message.metric_id for message in messages]
        event_names = [message.event_name for message in messages]
        raw = any(event_names)
        # Exactly one of the two is set, so what each event names is in one column.
        if raw and not all(map(operator.xor, map(bool, metric_ids), map(bool, event_names))):
            return None
        named = map(operator.add, metric_ids, event_names) if raw else metric_ids
        costs = [message.cost for message in messages]
        currencies = [message.currency or None for message in messages]
        reservation_ids = [message.reservation_id for message in messages]
        settles = any(reservation_ids)
        # Before a map is read: it may have very many entries.
        if any(len(message.properties) > MAX_PROPERTIES for message in messages):
            return None
        # dict() of a protobuf map, even of an empty one, takes as long as reading all the other fields.
        properties = [
            {key: stated[key] for key in stated} if (stated := message.properties) else {} for message in messages
        ]
        if not (
            (_are_plain(event_ids) or all(id_problem(event_id) is None for event_id in event_ids))
            and self._ids.contain_all({*customer_ids, *named, *filter(None, subscription_ids)})
            and (not any(currencies) or all(map(_is_valid_price, costs, currencies)))
            and not any(self._property_violations("", stated) for stated in properties if stated)
            and (not settles or all(id_problem(each) is None for each in reservation_ids if each))
            and not any(map(len, map(UnknownFieldSet, messages)))
        ):
            return None
        times = _parse_times(messages, earliest, latest)
        amounts = _parse_amounts(messages, costs)
        if times is None or amounts is None:
            return None
        quantities, exact_costs = amounts
        columns: list[Iterable[Any]] = [
            event_ids,
            customer_ids,
            times,
            metric_ids,
            quantities,
            subscription_ids,
            exact_costs,
            currencies,
            properties,
            [event_name or None for event_name in event_names] if raw else itertools.repeat(None),
        ]
        # What UsageEvent._make does, without a call of a Python function for each event.
        events = list(map(tuple.__new__, itertools.repeat(UsageEvent), zip(*columns, strict=False)))
        if settles:
            return [
                SettlingEvent.of(event, reservation_id) if reservation_id else event
                for event, reservation_id in zip(events, reservation_ids, strict=True)
            ]
        return events

    def _property_violations(self, path: str, properties: Mapping[str, str]) -> list[FieldViolation]:
        found = list[FieldViolation]()
        if len(properties) > MAX_PROPERTIES:
            return [FieldViolation(path, f"there are {len(properties)}; an event has at most {MAX_PROPERTIES}")]
        for key, value in properties.items():
            if not self._ids.contain(key) and (problem := id_problem(key)) is not None:
                found.append(FieldViolation(path, f"the key {key[:MAX_ID_LENGTH]!r}: {problem}"))
            if len(value) > MAX_PROPERTY_LENGTH:
                problem = f"it has {len(value)} characters; a value has at most {MAX_PROPERTY_LENGTH}"
                found.append(FieldViolation(f"{path}[{key[:MAX_ID_LENGTH]!r}]", problem))
            elif not value.isprintable() and (control := Violations()).text("", value) and control.found:
                found.append(FieldViolation(f"{path}[{key[:MAX_ID_LENGTH]!r}]", control.found[0].description))
        return found

    def _explain(self, index: int, message: usage_pb2.UsageEvent, earliest: datetime, latest: datetime) -> ApiError:
        """All that is wrong with an event that `_parse_valid` refused, or that its time is out of bounds."""
        path = f"batch.events[{index}]"
        check = Violations()
        # A field of a younger contract may decide what the event means; half of an event is not counted.
        unknown = UnknownFieldSet(message)
        for number in sorted({unknown[position].field_number for position in range(len(unknown))}):
            check.add(path, f"it has a field with the number {number}, which this service does not know")
        check.identifier(f"{path}.event_id", message.event_id)
        check.identifier(f"{path}.customer_id", message.customer_id)
        check.identifier(f"{path}.subscription_id", message.subscription_id, required=False)
        check.identifier(f"{path}.reservation_id", message.reservation_id, required=False)
        if message.event_name:
            check.identifier(f"{path}.event_name", message.event_name)
            if message.metric_id:
                check.add(f"{path}.event_name", "metric_id is set too; an event has one of them")
        else:
            check.identifier(f"{path}.metric_id", message.metric_id)
        if message.quantity or not message.event_name:
            check.decimal(f"{path}.quantity", message.quantity)
        if message.cost:
            check.decimal(f"{path}.cost", message.cost)
        if message.currency:
            if not message.cost:
                check.add(f"{path}.currency", "it is set without a cost")
            check.currency(f"{path}.currency", message.currency, default="")
        check.found += self._property_violations(f"{path}.properties", message.properties)
        if not message.HasField("event_time"):
            check.add(f"{path}.event_time", "it is required")
        else:
            check.time(f"{path}.event_time", message.event_time)
        if check.found:
            return invalid(message.event_id, check.found)
        time = to_datetime(message.event_time)
        if time > latest:
            return in_future(index, message.event_id, time, latest)
        return too_old(index, message.event_id, f"events before {earliest.isoformat()} are not kept")


def _parse_times(
    messages: Sequence[usage_pb2.UsageEvent], earliest: datetime, latest: datetime
) -> list[datetime] | None:
    """The times of the events, or None when any is invalid or out of bounds."""
    stated = [message.event_time for message in messages]
    seconds = [time.seconds for time in stated]
    # An unset time reads as 1970, which a long retention may allow.
    if 0 in seconds and not all(message.HasField("event_time") for message in messages):
        return None
    nanos = [time.nanos for time in stated]
    if min(nanos) < 0 or max(nanos) >= 1_000_000_000:
        return None
    try:
        dates = {second: _date_of(second) for second in set(seconds)}
    except OverflowError:
        return None
    # Most events of a batch share few seconds. A constructor takes half the time of a sum with a timedelta.
    times = [datetime(*dates[second], nano // 1000, UTC) for second, nano in zip(seconds, nanos, strict=True)]  # noqa: DTZ001
    return times if earliest < min(times) <= max(times) <= latest else None


def _date_of(second: int) -> tuple[int, int, int, int, int, int]:
    """The date and the time of day of a second since 1970. Raises OverflowError for years that do not exist."""
    time = _EPOCH + timedelta(0, second)
    return time.year, time.month, time.day, time.hour, time.minute, time.second


def _parse_amounts(
    messages: Sequence[usage_pb2.UsageEvent], costs: Sequence[str]
) -> tuple[list[Decimal], list[Decimal | None]] | None:
    """The quantities and the costs of the events, or None when any is invalid."""
    try:
        quantities = parse_decimals([message.quantity or ("1" if message.event_name else "") for message in messages])
        return quantities, [parse_decimal(cost) if cost else None for cost in costs]
    except AmountError:
        return None


def _are_plain(ids: Sequence[str]) -> bool:
    """Whether they are ids beyond doubt: of the right length, printable and without blanks."""
    text = "".join(ids)
    return text.isprintable() and " " not in text and all(ids) and max(map(len, ids)) <= MAX_ID_LENGTH


def _is_valid_price(cost: str, currency: str | None) -> bool:
    return currency is None or (bool(cost) and _is_valid_currency(currency))


@functools.lru_cache(maxsize=10_000)
def _is_valid_currency(currency: str) -> bool:
    return currency_problem(currency) is None
