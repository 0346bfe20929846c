"""Records: reservations as they are stored, and as a transaction changes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from evaluator.amounts import format_decimal
from evaluator.enforcement.decision_json import decision_from, decision_json
from evaluator.enforcement.decisions import Decision, Outcome
from evaluator.enforcement.reservations import GRACE, Reservation, ReservationState

_CONFLICT = '{"event_conflict": true}'  # in place of a settlement; as the database writes it


class HeldCharge(NamedTuple):
    """What a reservation holds of one meter. key: as `MeterCell.key`."""

    customer_id: str
    key: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the settlement of a reservation asked for, and the decision. The outcome is never DENIED."""

    quantity: Decimal
    cost: Decimal | None
    decision: Decision


@dataclass(eq=False, slots=True)
class Record:
    """A reservation in a transaction that holds the wallets of its customers.

    digest: of the content of the request that made it, in hexadecimal digits, with or without dashes. charges: what
    it holds of meters; kept after its end. draws: what it took of balances, as JSON. answer: the first decision as
    JSON; None where it follows from the reservation. settlement: as JSON, too. is_new: it is not stored yet. changed:
    it has to be written.
    """

    reservation: Reservation
    digest: str
    charges: str | None = None
    draws: str | None = None
    answer: str | None = None
    settlement: str | None = None
    is_new: bool = False
    changed: bool = False
    _held: list[HeldCharge] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Customer and reservation."""
        return self.reservation.customer_id, self.reservation.reservation_id

    @property
    def held(self) -> list[HeldCharge]:
        """What it holds of meters while it is open."""
        if self._held is None:
            stored = [] if self.charges is None else orjson.loads(self.charges)
            self._held = [HeldCharge(customer_id, key, Decimal(amount)) for customer_id, key, amount in stored]
        return self._held

    def hold(self, charges: Sequence[HeldCharge]) -> None:
        """Notes what it holds of meters."""
        self._held = list(charges)
        if charges:
            self.charges = orjson.dumps([(one.customer_id, one.key, str(one.amount)) for one in charges]).decode()

    def is_due(self, now: datetime) -> bool:
        """Whether it is open and its grace has ended."""
        one = self.reservation
        return one.state is ReservationState.OPEN and now >= one.expire_time + GRACE

    def change(self, **values: Any) -> None:
        """Changes the reservation."""
        self.reservation = replace(self.reservation, **values)
        self.changed = True

    @property
    def decision(self) -> Decision:
        """The first decision."""
        if self.answer is not None:
            return decision_from(orjson.loads(self.answer))
        one = self.reservation
        return Decision(one.outcome, one.granted_quantity, one.granted_cost)

    def answer_with(self, decision: Decision) -> None:
        """Takes the first decision."""
        self.answer = None
        if decision.outcome is not Outcome.ALLOWED or decision.over:
            self.answer = orjson.dumps(decision_json(decision)).decode()

    @property
    def settled(self) -> Settlement | None:
        """The settlement; None before it."""
        one = self.reservation
        if one.settled_quantity is None:
            return None
        if self.settlement is None:
            decision = Decision(Outcome.ALLOWED, one.settled_quantity, one.settled_cost)
            return Settlement(one.settled_quantity, one.settled_cost, decision)
        stored = orjson.loads(self.settlement)
        cost = None if stored["cost"] is None else Decimal(stored["cost"])
        return Settlement(Decimal(stored["quantity"]), cost, decision_from(stored["decision"]))

    @property
    def has_conflict(self) -> bool:
        """Whether its settlement was refused because an event of its id is stored."""
        return self.settlement == _CONFLICT

    def note_conflict(self) -> None:
        """Notes that its settlement was refused because an event of its id is stored. It must have ended."""
        self.settlement = _CONFLICT

    def settle_with(self, settlement: Settlement) -> None:
        """Takes the settlement, whose amounts are noted in the reservation."""
        self.settlement = None
        if settlement.decision.outcome is not Outcome.ALLOWED or settlement.decision.over:
            cost = None if settlement.cost is None else format_decimal(settlement.cost)
            decision = decision_json(settlement.decision)
            stored = {"quantity": format_decimal(settlement.quantity), "cost": cost, "decision": decision}
            self.settlement = orjson.dumps(stored).decode()
