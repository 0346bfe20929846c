"""The words for what a billing system posts: balances, invoices and plans, and the steps of a script of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from demo.world import Event

COMMIT, CONTRACT_CREDIT, CREDIT_GRANT = "COMMIT", "CONTRACT_CREDIT", "CREDIT_GRANT"
SEAT_CREDIT, LICENSE_ALLOTMENT = "SEAT_CREDIT", "LICENSE_ALLOTMENT"
DRAFT, ISSUED, VOID = "DRAFT", "ISSUED", "VOID"


@dataclass(frozen=True)
class Span:
    """A segment of a balance: what it grants, from when, and until when (None: for good)."""

    amount: Decimal
    start: datetime
    end: datetime | None = None


@dataclass(frozen=True)
class Grant:
    """A balance as it is put. Held in `currency`, or in units of `metric`. type: of a credit grant or a licence."""

    customer: str
    balance_id: str
    kind: str
    spans: tuple[Span, ...]
    currency: str = ""
    metric: str = ""
    priority: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    type: str = ""
    seat: tuple[str, str] | None = None


@dataclass(frozen=True)
class Adjustment:
    """More or less is granted in the first segment of a balance."""

    customer: str
    balance_id: str
    amount: Decimal


@dataclass(frozen=True)
class Voiding:
    """A balance ends for good."""

    customer: str
    balance_id: str


@dataclass(frozen=True)
class Posting:
    """An invoice as it is put."""

    customer: str
    invoice_id: str
    type: str
    status: str
    currency: str
    total: Decimal
    period_end: datetime


@dataclass(frozen=True)
class PlanEnd:
    """The end of a customer's plan becomes known, or another one."""

    customer: str
    plan: str
    end: datetime


@dataclass(frozen=True)
class Wait:
    """Nothing is sent until then."""

    until: datetime


Step = Grant | Adjustment | Voiding | Posting | PlanEnd | Wait | Event
