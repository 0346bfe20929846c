"""Usage events: how a program makes them, and the ids of those that have none."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal

from tidemark_client.tasks.clock import now
from tidemark_client.v1.usage_pb2 import UsageEvent

MAX_EVENT_BYTES = 1024 * 1024  # of one event; the contract's bounds allow about 30 KiB


class EventIds:
    """Ids that no other process makes: 96 random bits, and a number."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(12)
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """A new id. Threads may call it."""
        return f"{self._prefix}-{next(self._numbers):x}"


_IDS = EventIds()


def usage_event(
    customer_id: str,
    metric_id: str = "",
    quantity: Decimal | int | str | None = None,
    *,
    event_id: str = "",
    event_time: datetime | None = None,
    event_name: str = "",
    cost: Decimal | int | str | None = None,
    currency: str = "",
    subscription_id: str = "",
    reservation_id: str = "",
    properties: Mapping[str, str] | None = None,
) -> UsageEvent:
    """One use of a metric, or a raw event with an `event_name`.

    quantity, cost: exact: a float is refused. event_id: unset, a new one; give your own if you may send the event
    again after a restart, and then repeat the time, too. event_time: unset, now; without a time zone it is refused.

    Raises TypeError and ValueError. Everything else is the server's to check: it rejects the event alone.
    """
    event = UsageEvent(
        event_id=event_id or _IDS.next(),
        customer_id=customer_id,
        subscription_id=subscription_id,
        metric_id=metric_id,
        quantity=amount(quantity, "quantity"),
        cost=amount(cost, "cost"),
        currency=currency,
        event_name=event_name,
        reservation_id=reservation_id,
        properties=properties,
    )
    set_time(event, now() if event_time is None else event_time)
    return event


def amount(value: Decimal | int | str | None, name: str) -> str:
    """An amount in the form of the contract; empty for None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (Decimal, int)):
        raise TypeError(f"{name} is a {type(value).__name__}: write Decimal, int or str, which are exact")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def set_time(event: UsageEvent, time: datetime) -> None:
    """Sets the time of an event, to the microsecond."""
    if time.tzinfo is None:
        raise ValueError("event_time has no time zone: write datetime.now(timezone.utc), for example")
    event.event_time.FromDatetime(time.astimezone(timezone.utc).replace(tzinfo=None))


def fill(event: UsageEvent) -> None:
    """Gives an event without an id or a time one."""
    if not event.event_id:
        event.event_id = _IDS.next()
    if not event.HasField("event_time"):
        set_time(event, now())


def complete(event: UsageEvent) -> bytes:
    """The event in the form of the wire. One without an id or a time gets them, in the message itself, too.

    Raises ValueError for an event that no server takes, because of its size.
    """
    fill(event)
    content = event.SerializeToString()
    if len(content) > MAX_EVENT_BYTES:
        raise ValueError(f"the event {event.event_id[:128]} is larger than {MAX_EVENT_BYTES:,} bytes")
    return content
