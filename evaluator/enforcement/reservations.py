"""Reservations: what a customer holds of its limits and balances until it is settled, released, or has expired."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.usage import Usage

DEFAULT_TTL = timedelta(seconds=60)
LONGEST_TTL = timedelta(hours=24)
GRACE = timedelta(seconds=5)  # after expire_time, in which a settlement is in time and the hold keeps its capacity


class ReservationState(StrEnum):
    """What became of a reservation."""

    OPEN = "OPEN"
    SETTLED = "SETTLED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"
    DENIED = "DENIED"  # it has never held anything


@dataclass(slots=True)  # not frozen: it is made for each answer, and that takes three times as long
class Reservation:
    """A reservation as a request found or left it. It is not changed.

    usage: what was asked for; its event_time is set, and its currency where it has a cost. outcome: of the first
    decision. granted_quantity, granted_cost: what it holds, or held. settled_quantity, settled_cost: what was counted
    at its settlement; None before. late: it was settled after it had expired, and counted as plain usage.
    expire_time: when it may expire; its capacity is given back GRACE later. end_time: None while it is open.
    """

    reservation_id: str
    usage: Usage
    policy: OveragePolicy
    state: ReservationState
    outcome: Outcome
    granted_quantity: Decimal
    granted_cost: Decimal | None
    create_time: datetime
    expire_time: datetime
    end_time: datetime | None = None
    settled_quantity: Decimal | None = None
    settled_cost: Decimal | None = None
    late: bool = False

    @property
    def customer_id(self) -> str:
        """Of the usage."""
        return self.usage.customer_id
