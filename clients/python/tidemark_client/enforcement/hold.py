"""What a guard answers to one request for usage, and what the program says about it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tidemark_client.tasks.clock import now
from tidemark_client.usage.events import amount
from tidemark_client.v1.decision_pb2 import Decision


@dataclass
class Hold:
    """The answer to one request for usage. At the end of its block it is settled, or released.

    allowed: whether the work may be done. quantity: what may be used: less than was asked for with the policy CAP.
    decided: the server has answered; False: the guard has, because the server did not. retry_after: seconds; None: no
    time will make it fit, or nothing is known. limit_id: the limit that refused, or the tightest one. decision: the
    whole answer of the server; None where it has not answered.
    """

    reservation_id: str
    allowed: bool
    quantity: Decimal
    decided: bool = True
    retry_after: float | None = None
    limit_id: str = ""
    decision: Decision | None = None
    time: datetime = field(default_factory=now)
    used: Decimal | None = None
    used_cost: str = ""
    is_released: bool = False

    def settle(self, quantity: Decimal | int | str, cost: Decimal | int | str | None = None) -> None:
        """Says what was used, and what it cost. Unsaid at the end of the block, all of `quantity` was used."""
        self.used = Decimal(amount(quantity, "quantity"))
        self.used_cost = amount(cost, "cost")
        self.is_released = False

    def release(self) -> None:
        """Says that nothing was used: at the end of the block, all is given back."""
        self.is_released = True
        self.used = None
