"""The month that the demo makes up: who its customers are, what they are measured by, and which lines are drawn."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from demo.world import (
    BOTH,
    COST_EXCEEDED,
    COUNT,
    LATEST,
    MAX,
    REACHED,
    RESOLVED,
    SPEND_EXCEEDED,
    SPEND_THRESHOLD_REACHED,
    UNIQUE_COUNT,
    USAGE_EXCEEDED,
    USAGE_THRESHOLD_REACHED,
    AlertPlan,
    Customer,
    Cycle,
    Line,
    Metric,
    Subscription,
)

LATER_AT = 0.7  # of the month; by then the customers' last periods have begun

METRICS = (
    Metric("tokens"),
    Metric("api_calls", COUNT),
    Metric("storage_gb", MAX),
    Metric("seats", LATEST),
    Metric("active_users", UNIQUE_COUNT, "user_id"),
)


@dataclass(frozen=True)
class Scenario:
    """customers, metrics; alerts: from the first day on; later_alerts: created LATER_AT through the month."""

    customers: tuple[Customer, ...]
    metrics: tuple[Metric, ...]
    alerts: tuple[AlertPlan, ...]
    later_alerts: tuple[AlertPlan, ...]


def month(now: datetime) -> Scenario:
    """The scenario of a month that ends `now`. The cycles are anchored so that periods roll over within it."""
    return Scenario(_customers(now), METRICS, ALERTS, LATER_ALERTS)


def _customers(now: datetime) -> tuple[Customer, ...]:
    day = now.astimezone(UTC).replace(hour=9, minute=0, second=0, microsecond=0)
    monthly = Cycle(day - timedelta(days=12), zone="Europe/Berlin")
    return (
        Customer(
            "acme",
            plan="pro",
            cycle=monthly,
            subscriptions=(
                Subscription("acme-main", "platform"),
                Subscription("acme-labs", "platform", Cycle(day - timedelta(days=5), "week")),
            ),
        ),
        Customer(
            "globex",
            plan="pro",
            cycle=Cycle(day - timedelta(days=10), "week"),
            subscriptions=(Subscription("globex-main", "platform"),),
        ),
        # Month ends: the periods start on the 31st, or on the last day of a shorter month.
        Customer(
            "initech",
            plan="starter",
            cycle=Cycle(datetime(now.year - 1, 1, 31, 5, tzinfo=UTC), zone="America/New_York"),
            subscriptions=(Subscription("initech-main", "platform"),),
        ),
        Customer("hooli", plan="pro", currency="EUR", cycle=Cycle(day - timedelta(days=8), "day", 10)),
        Customer("umbrella", plan="starter", cycle=Cycle(day - timedelta(days=20), zone="Asia/Kathmandu")),
        # Nobody registers this one: it appears with its first event, with calendar months and USD.
        Customer("vandelay", registered=False),
    )


def _lines(*values: str, tell: tuple[str, ...] = (REACHED,)) -> tuple[Line, ...]:
    return tuple(Line(Decimal(value), tell=tell) for value in values)


ALERTS = (
    AlertPlan(
        "Spend of every customer",
        SPEND_THRESHOLD_REACHED,
        "USD",
        (
            Line(Decimal(50), code="half"),
            Line(Decimal(100), code="full", tell=BOTH),
            Line(Decimal("249.99"), code="over"),
        ),
    ),
    AlertPlan(
        "Spend on plan pro, every 75",
        SPEND_THRESHOLD_REACHED,
        "USD",
        (Line(Decimal(150)), Line(step=Decimal(75), tell=BOTH)),
        plan="pro",
    ),
    AlertPlan(
        "Spend of acme by region",
        SPEND_THRESHOLD_REACHED,
        "USD",
        _lines("25", "75", "120"),
        customer="acme",
        groups=(("region", None),),
    ),
    AlertPlan("Spend of hooli in euros", SPEND_THRESHOLD_REACHED, "EUR", _lines("40", "80"), customer="hooli"),
    AlertPlan(
        "Tokens of the large model",
        USAGE_THRESHOLD_REACHED,
        "tokens",
        _lines("20000", "60000", "100000"),
        groups=(("model", "large"),),
    ),
    AlertPlan(
        "Tokens by model and region",
        USAGE_THRESHOLD_REACHED,
        "tokens",
        _lines("30000"),
        plan="pro",
        groups=(("model", None), ("region", None)),
    ),
    AlertPlan("Calls on plan starter", USAGE_THRESHOLD_REACHED, "api_calls", _lines("10", "25"), plan="starter"),
    AlertPlan("Peak storage", USAGE_THRESHOLD_REACHED, "storage_gb", _lines("62.5", "88")),
    AlertPlan(
        "Seats of globex",
        USAGE_THRESHOLD_REACHED,
        "seats",
        (
            Line(Decimal(20), tell=BOTH),
            Line(Decimal(25), resolve=Decimal(18), tell=BOTH),
            Line(Decimal(28), tell=(RESOLVED,)),
        ),
        customer="globex",
    ),
    AlertPlan("Active users", USAGE_THRESHOLD_REACHED, "active_users", _lines("10", "20")),
    AlertPlan(
        "Tokens of acme-main",
        USAGE_EXCEEDED,
        "tokens",
        _lines("25000", "75000", tell=BOTH),
        customer="acme",
        subscription="acme-main",
    ),
    AlertPlan(
        "Tokens of a platform subscription",
        USAGE_EXCEEDED,
        "tokens",
        (Line(step=Decimal(40000)),),
        plan="platform",
    ),
    AlertPlan("Cost of a platform subscription", COST_EXCEEDED, "USD", _lines("30", "90"), plan="platform"),
    AlertPlan(
        "Cost of acme-main by model",
        COST_EXCEEDED,
        "USD",
        _lines("15", "45", "90"),
        customer="acme",
        subscription="acme-main",
        groups=(("model", None),),
    ),
    AlertPlan(
        "Spend of globex-main",
        SPEND_EXCEEDED,
        "USD",
        (Line(Decimal(10)), Line(step=Decimal(20), tell=BOTH)),
        customer="globex",
        subscription="globex-main",
    ),
)

# Nobody watched these groups before: what was streamed earlier in the period counts all the same.
LATER_ALERTS = (
    AlertPlan(
        "Spend of acme by team, later",
        SPEND_THRESHOLD_REACHED,
        "USD",
        _lines("20", "60", "140"),
        customer="acme",
        groups=(("team", None),),
    ),
    AlertPlan(
        "Tokens of umbrella, from now",
        USAGE_THRESHOLD_REACHED,
        "tokens",
        _lines("1000", "240000", "280000", "320000", tell=BOTH),
        customer="umbrella",
        evaluate_on_create=False,
    ),
)
