"""The words of the demo: customers, metrics, alerts and events, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

REACHED = "REACHED"
RESOLVED = "RESOLVED"
BOTH = (REACHED, RESOLVED)

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

DAYS = "days"  # what the days left are measured in
PERCENT = "percent"  # what a licence's use is measured in
EVER = datetime.min.replace(tzinfo=UTC)  # the period's start of what has no period

SUM, COUNT, MAX, LATEST, UNIQUE_COUNT = "SUM", "COUNT", "MAX", "LATEST", "UNIQUE_COUNT"


@dataclass(frozen=True)
class Cycle:
    """A billing cycle. cadence: day, week or month; periods start at the anchor's wall clock time in the zone."""

    anchor: datetime
    cadence: str = "month"
    interval: int = 1
    zone: str = "UTC"


@dataclass(frozen=True)
class Subscription:
    """A subscription of a customer; without a cycle it follows the customer's."""

    subscription_id: str
    plan: str = ""
    cycle: Cycle | None = None


@dataclass(frozen=True)
class Customer:
    """A customer. registered: whether the demo says so before the first event, or leaves it to first sight."""

    customer_id: str
    plan: str = ""
    currency: str = "USD"
    cycle: Cycle | None = None
    subscriptions: tuple[Subscription, ...] = ()
    registered: bool = True

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Its subscription of that id."""
        return next((one for one in self.subscriptions if one.subscription_id == subscription_id), None)


@dataclass(frozen=True)
class Metric:
    """A metric; unique_property: what UNIQUE_COUNT counts the values of."""

    metric_id: str
    aggregation: str = SUM
    unique_property: str = ""


@dataclass(frozen=True)
class Line:
    """A threshold: a fixed value, or a step that recurs."""

    value: Decimal | None = None
    step: Decimal | None = None
    resolve: Decimal | None = None
    code: str = ""
    tell: tuple[str, ...] = (REACHED,)


@dataclass(frozen=True)
class AlertPlan:
    """An alert to create; its name is unique in the demo.

    Scope: `plan`, or `customer`, or `customer` and `subscription`, or none of them for all customers. measured: a
    metric, or a currency where `of_cost`. groups: property keys, each with the one value that counts or None.
    types: of invoices, grants or the licence. seat_key: the property that names seats. divide_by, excluded: a custom
    field by whose values commits and credits are divided, and one that they must not have.
    """

    name: str
    condition: str
    measured: str
    lines: tuple[Line, ...]
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
        """Whom it covers, in words."""
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


class Crossing(NamedTuple):
    """One threshold reached or resolved on one gauge: what the expectation and the service have to agree on.

    level: in its shortest form. event_id: empty where the gauge was past the line before the alert existed.
    """

    alert: str
    customer: str
    subscription: str
    measured: str
    group: tuple[tuple[str, str], ...]
    period_start: datetime
    kind: str
    level: str
    event_id: str


def short(value: Decimal) -> str:
    """The shortest plain text of a decimal."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
