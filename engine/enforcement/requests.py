"""Requests of enforcement, and their answers: what the server and the engine exchange.

A denial is an answer (`Decided`). What cannot be decided is an exception that derives from `EnforcementRefused`. It
is a value in the list of answers: the other requests of the same call are not affected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from engine.evaluation.results import RecordedTransition
from evaluator.enforcement.decisions import Decision, OveragePolicy
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.enforcement.usage import Usage


@dataclass(slots=True)  # not frozen: see `Usage`
class Reserve:
    """Holds what usage will take. expire_time, ttl: at most one is set; neither: DEFAULT_TTL.

    The caller has checked that neither is longer than LONGEST_TTL and that `usage.event_time` is not in the future.
    """

    reservation_id: str
    usage: Usage
    policy: OveragePolicy = OveragePolicy.DEFAULT
    expire_time: datetime | None = None
    ttl: timedelta | None = None

    @property
    def customer_id(self) -> str:
        """Of the usage."""
        return self.usage.customer_id


@dataclass(slots=True)  # not frozen: see `Usage`
class Settle:
    """Records the usage of a reservation. quantity, cost: what was used; None: what was granted.

    The cost is in the currency of the reservation; a reservation without a cost can only be settled without one.
    """

    customer_id: str
    reservation_id: str
    quantity: Decimal | None = None
    cost: Decimal | None = None


@dataclass(slots=True)  # not frozen: see `Usage`
class Release:
    """Gives back all that a reservation holds."""

    customer_id: str
    reservation_id: str


@dataclass(slots=True)  # not frozen: see `Usage`
class Extend:
    """Moves the time at which a reservation expires, also to an earlier one. expire_time, ttl: as in `Reserve`."""

    customer_id: str
    reservation_id: str
    expire_time: datetime | None = None
    ttl: timedelta | None = None


Request = Reserve | Settle | Release | Extend


@dataclass(slots=True)  # not frozen: see `Reservation`
class Decided:
    """The answer to a request.

    decision: of Reserve and Settle; None for Release and Extend. transitions: of alerts, that the usage of a
    settlement caused; a repeated settlement has none. replayed: the request had been carried out before, so that it
    changed nothing.
    """

    decision: Decision | None
    reservation: Reservation
    transitions: Sequence[RecordedTransition] = field(default_factory=tuple)
    replayed: bool = False


class EnforcementRefused(Exception):
    """A request that cannot be decided."""

    def __init__(self, text: str, customer_id: str) -> None:
        super().__init__(text)
        self.customer_id = customer_id


class ReservationNotFound(EnforcementRefused):
    """The customer has no such reservation, or it ended so long ago that it was deleted."""

    def __init__(self, customer_id: str, reservation_id: str) -> None:
        super().__init__(f"customer {customer_id!r} has no reservation {reservation_id!r}", customer_id)
        self.reservation_id = reservation_id


class ReservationConflict(EnforcementRefused):
    """The reservation exists with other content."""

    def __init__(self, customer_id: str, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id!r} exists with other content", customer_id)
        self.reservation_id = reservation_id


class ReservationEnded(EnforcementRefused):
    """The reservation has ended, so that the request cannot be carried out any more. state: how it ended."""

    def __init__(self, customer_id: str, reservation_id: str, state: ReservationState) -> None:
        super().__init__(f"reservation {reservation_id!r} has ended: {state.value}", customer_id)
        self.reservation_id = reservation_id
        self.state = state


class ReservationWithoutCost(EnforcementRefused):
    """A settlement has a cost, but the reservation has none, so that its currency is not known."""

    def __init__(self, customer_id: str, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id!r} has no cost to settle", customer_id)
        self.reservation_id = reservation_id


class EventConflict(EnforcementRefused):
    """The customer has an event with the id of the reservation already, in the same month."""

    def __init__(self, customer_id: str, event_id: str) -> None:
        super().__init__(f"customer {customer_id!r} has an event {event_id!r} already", customer_id)
        self.event_id = event_id


class CustomerBeingErased(EnforcementRefused):
    """The customer is being erased, so that it takes no usage."""

    def __init__(self, customer_id: str) -> None:
        super().__init__(f"customer {customer_id!r} is being erased", customer_id)


class UsageTooOld(EnforcementRefused):
    """The event_time of the usage lies in periods that do not change any more."""

    def __init__(self, customer_id: str, event_time: datetime) -> None:
        super().__init__(f"event_time {event_time.isoformat()} lies in a period that is out of grace", customer_id)
        self.event_time = event_time


class ExpireTimePassed(EnforcementRefused):
    """The expire_time of a new reservation, or of an extension, is not ahead: it would hold nothing."""

    def __init__(self, customer_id: str, expire_time: datetime, now: datetime) -> None:
        super().__init__(f"expire_time {expire_time.isoformat()} has passed", customer_id)
        self.expire_time = expire_time
        self.now = now


class UnrecordableRequest(EnforcementRefused):
    """The service failed to record the request; nothing of it is stored. Others of the same call may be."""

    def __init__(self, customer_id: str) -> None:
        super().__init__("the request could not be recorded", customer_id)
