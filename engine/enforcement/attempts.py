"""Attempts: one try of a commit of enforcement, with what it has found for its requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from engine.enforcement.metering import Metered
from engine.enforcement.requests import Decided, EnforcementRefused, Request
from evaluator.enforcement.reservations import ReservationState
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from store.enforcement.records import Record

Answer = Decided | EnforcementRefused
Key = tuple[str, str]  # customer and reservation


class Surprise(Exception):
    """Something that was read before the locks has changed since; the transaction is repeated."""


@dataclass(eq=False)
class Attempt:
    """One try of a commit.

    checked: whether stored events are looked for before usage of settlements is stored. planned: whether what it
    needs may be planned with the cached rules, see `Loader.plan`. taken: the reservations to be made whose ids are
    those of stored events.
    """

    requests: Sequence[Request]
    checked: bool
    planned: bool
    usages: dict[int, Metered] = field(default_factory=dict)  # by index of the request
    settled: dict[Key, Metered] = field(default_factory=dict)  # of reservations that exist
    refused: dict[int, EnforcementRefused] = field(default_factory=dict)
    taken: set[Key] = field(default_factory=set)


def is_unsettled(record: Record) -> bool:
    """Whether a settlement of it would store usage."""
    one = record.reservation
    return one.settled_quantity is None and one.state in (ReservationState.OPEN, ReservationState.EXPIRED)


def usage_event(usage: Usage, event_id: str = "") -> UsageEvent:
    """An event that names what usage names."""
    time = usage.event_time or datetime.max.replace(tzinfo=UTC)
    return UsageEvent(
        event_id,
        usage.customer_id,
        time,
        usage.metric_id,
        usage.quantity,
        usage.subscription_id,
        usage.cost,
        usage.currency,
        usage.properties,
    )
