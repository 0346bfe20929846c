"""The words of the demo: customers, metrics, alerts and events, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
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
SUBSCRIPTION_CONDITIONS = (USAGE_EXCEEDED, COST_EXCEEDED, SPEND_EXCEEDED)

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
