"""The steps of a billing system's script: what it posts, the usage between, and waiting."""

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from demo.definitions import Event
from tests.reference.balances import Span, Terms
from tests.reference.facts import Invoice

DRAFT, ISSUED = "DRAFT", "ISSUED"  # statuses of invoices, besides VOID


@dataclass(frozen=True)
class PutBalance:
    """A balance is put."""

    customer: str
    terms: Terms
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class AdjustBalance:
    """The first segment of a balance grants more or less."""

    customer: str
    balance_id: str
    amount: Fraction


@dataclass(frozen=True)
class VoidBalance:
    """A balance ends for good."""

    customer: str
    balance_id: str


@dataclass(frozen=True)
class PutInvoice:
    """An invoice is put."""

    customer: str
    invoice: Invoice


@dataclass(frozen=True)
class PutPlanEnd:
    """The end of a customer's plan is put."""

    customer: str
    plan: str
    end: datetime


@dataclass(frozen=True)
class Wait:
    """Nothing is sent until then."""

    until: datetime


Posting = PutBalance | AdjustBalance | VoidBalance | PutInvoice | PutPlanEnd
Step = Posting | Wait | Event
