"""What the demo defines and sends: customers, alerts and usage events, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction

from tests.reference.periods import Cycle
from tests.reference.thresholds import REACHED, Threshold

SPEND_THRESHOLD_REACHED = "spend_threshold_reached"
USAGE_THRESHOLD_REACHED = "usage_threshold_reached"
USAGE_EXCEEDED = "usage_exceeded"
COST_EXCEEDED = "cost_exceeded"
SPEND_EXCEEDED = "spend_exceeded"
MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED = "monthly_invoice_total_spend_threshold_reached"
INVOICE_TOTAL_REACHED = "invoice_total_reached"
LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED = "low_remaining_days_for_commit_segment_reached"
LOW_REMAINING_COMMIT_BALANCE_REACHED = "low_remaining_commit_balance_reached"
LOW_REMAINING_COMMIT_PERCENTAGE_REACHED = "low_remaining_commit_percentage_reached"
LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED = "low_remaining_days_for_contract_credit_segment_reached"
LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED = "low_remaining_contract_credit_balance_reached"
LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED = "low_remaining_contract_credit_percentage_reached"
LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED = "low_remaining_contract_credit_and_commit_balance_reached"
LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED = (
    "low_remaining_contract_credit_and_commit_percentage_reached"
)
LOW_REMAINING_SEAT_BALANCE_REACHED = "low_remaining_seat_balance_reached"
LOW_CREDIT_BALANCE_REACHED = "low_credit_balance_reached"
LOW_REMAINING_CREDIT_PERCENTAGE_REACHED = "low_remaining_credit_percentage_reached"
LOW_REMAINING_DAYS_IN_PLAN_REACHED = "low_remaining_days_in_plan_reached"
CREDIT_BALANCE_DEPLETED = "credit_balance_depleted"
CREDIT_BALANCE_DROPPED = "credit_balance_dropped"
CREDIT_BALANCE_RECOVERED = "credit_balance_recovered"
LICENSE_BALANCE_THRESHOLD_REACHED = "license_balance_threshold_reached"
SUBSCRIPTION_CONDITIONS = (USAGE_EXCEEDED, COST_EXCEEDED, SPEND_EXCEEDED)

DAYS = "days"  # the unit of the days left
PERCENT = "percent"  # the unit of a licence's use

PRECISION = 80  # digits; no amount of the demo needs as many


@dataclass(frozen=True)
class Subscription:
    """A subscription of a customer; without a cycle it follows the customer's."""

    subscription_id: str
    plan: str = ""
    cycle: Cycle | None = None


@dataclass(frozen=True)
class Customer:
    """A customer. registered: the demo puts it before the first event; otherwise usage registers it implicitly."""

    customer_id: str
    plan: str = ""
    currency: str = "USD"
    cycle: Cycle | None = None
    subscriptions: tuple[Subscription, ...] = ()
    registered: bool = True


@dataclass(frozen=True)
class AlertDefinition:
    """An alert to create; its name is unique in the demo.

    Scope: `plan`, or `customer`, or `customer` and `subscription`, or none of them for all customers. measured: a
    metric, or a currency where `of_cost`. groups: property keys, each with the one value that counts, or None for
    all. types: of invoices, grants or the licence. seat_key: the property that names seats. divide_by, excluded: a
    custom field whose values divide commits and credits, and one that they must not have.
    """

    name: str
    condition: str
    measured: str
    thresholds: tuple[Threshold, ...]
    plan: str = ""
    customer: str = ""
    subscription: str = ""
    groups: tuple[tuple[str, str | None], ...] = ()
    evaluate_on_create: bool = True
    types: tuple[str, ...] = ()
    seat_key: str = ""
    divide_by: str = ""
    excluded: tuple[str, str] | None = None

    @property
    def of_cost(self) -> bool:
        """Whether it adds up costs."""
        return self.condition in (SPEND_THRESHOLD_REACHED, COST_EXCEEDED, SPEND_EXCEEDED)

    @property
    def per_subscription(self) -> bool:
        """Whether each subscription is measured on its own."""
        return self.condition in SUBSCRIPTION_CONDITIONS

    @property
    def scope(self) -> str:
        """The customers that it covers, in words."""
        if self.plan:
            return f"plan {self.plan}"
        if self.subscription:
            return f"{self.customer}/{self.subscription}"
        return self.customer or "all customers"


@dataclass(frozen=True)
class Event:
    """A usage event as it is sent. Texts are sent as they are, so that they can be wrong."""

    event_id: str
    customer: str
    metric: str
    quantity: str
    time: datetime
    subscription: str = ""
    cost: str = ""
    currency: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


def thresholds(*values: str, notify_on: frozenset[str] = frozenset({REACHED})) -> tuple[Threshold, ...]:
    """Fixed thresholds."""
    return tuple(Threshold(Fraction(value), notify_on=notify_on) for value in values)


def decimal_text(value: Decimal | Fraction) -> str:
    """The shortest plain text of a number that is an exact decimal."""
    if isinstance(value, Fraction):
        with localcontext(prec=PRECISION):
            value = Decimal(value.numerator) / Decimal(value.denominator)
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
