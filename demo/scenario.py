"""The month that the demo generates: its customers, metrics and alerts."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from demo.definitions import (
    COST_EXCEEDED,
    SPEND_EXCEEDED,
    SPEND_THRESHOLD_REACHED,
    USAGE_EXCEEDED,
    USAGE_THRESHOLD_REACHED,
    AlertDefinition,
    Customer,
    Subscription,
    thresholds,
)
from tests.reference.gauges import COUNT, LATEST, MAX, UNIQUE_COUNT, Metric
from tests.reference.periods import Cycle
from tests.reference.thresholds import BOTH, RESOLVED, Threshold

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
    alerts: tuple[AlertDefinition, ...]
    later_alerts: tuple[AlertDefinition, ...]


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
        # Not registered: its first event registers it implicitly, with calendar months and USD.
        Customer("vandelay", registered=False),
    )


ALERTS = (
    AlertDefinition(
        "Spend of every customer",
        SPEND_THRESHOLD_REACHED,
        "USD",
        (
            Threshold(Fraction(50), code="half"),
            Threshold(Fraction(100), code="full", notify_on=BOTH),
            Threshold(Fraction("249.99"), code="over"),
        ),
    ),
    AlertDefinition(
        "Spend on plan pro, every 75",
        SPEND_THRESHOLD_REACHED,
        "USD",
        (Threshold(Fraction(150)), Threshold(step=Fraction(75), notify_on=BOTH)),
        plan="pro",
    ),
    AlertDefinition(
        "Spend of acme by region",
        SPEND_THRESHOLD_REACHED,
        "USD",
        thresholds("25", "75", "120"),
        customer="acme",
        groups=(("region", None),),
    ),
    AlertDefinition(
        "Spend of hooli in euros", SPEND_THRESHOLD_REACHED, "EUR", thresholds("40", "80"), customer="hooli"
    ),
    AlertDefinition(
        "Tokens of the large model",
        USAGE_THRESHOLD_REACHED,
        "tokens",
        thresholds("20000", "60000", "100000"),
        groups=(("model", "large"),),
    ),
    AlertDefinition(
        "Tokens by model and region",
        USAGE_THRESHOLD_REACHED,
        "tokens",
        thresholds("30000"),
        plan="pro",
        groups=(("model", None), ("region", None)),
    ),
    AlertDefinition(
        "Calls on plan starter", USAGE_THRESHOLD_REACHED, "api_calls", thresholds("10", "25"), plan="starter"
    ),
    AlertDefinition("Peak storage", USAGE_THRESHOLD_REACHED, "storage_gb", thresholds("62.5", "88")),
    AlertDefinition(
        "Seats of globex",
        USAGE_THRESHOLD_REACHED,
        "seats",
        (
            Threshold(Fraction(20), notify_on=BOTH),
            Threshold(Fraction(25), resolve=Fraction(18), notify_on=BOTH),
            Threshold(Fraction(28), notify_on=frozenset({RESOLVED})),
        ),
        customer="globex",
    ),
    AlertDefinition("Active users", USAGE_THRESHOLD_REACHED, "active_users", thresholds("10", "20")),
    AlertDefinition(
        "Tokens of acme-main",
        USAGE_EXCEEDED,
        "tokens",
        thresholds("25000", "75000", notify_on=BOTH),
        customer="acme",
        subscription="acme-main",
    ),
    AlertDefinition(
        "Tokens of a platform subscription",
        USAGE_EXCEEDED,
        "tokens",
        (Threshold(step=Fraction(40000)),),
        plan="platform",
    ),
    AlertDefinition("Cost of a platform subscription", COST_EXCEEDED, "USD", thresholds("30", "90"), plan="platform"),
    AlertDefinition(
        "Cost of acme-main by model",
        COST_EXCEEDED,
        "USD",
        thresholds("15", "45", "90"),
        customer="acme",
        subscription="acme-main",
        groups=(("model", None),),
    ),
    AlertDefinition(
        "Spend of globex-main",
        SPEND_EXCEEDED,
        "USD",
        (Threshold(Fraction(10)), Threshold(step=Fraction(20), notify_on=BOTH)),
        customer="globex",
        subscription="globex-main",
    ),
)

# No alert watched these groups before. What was streamed earlier in the period counts for them nevertheless.
LATER_ALERTS = (
    AlertDefinition(
        "Spend of acme by team, later",
        SPEND_THRESHOLD_REACHED,
        "USD",
        thresholds("20", "60", "140"),
        customer="acme",
        groups=(("team", None),),
    ),
    AlertDefinition(
        "Tokens of umbrella, from now",
        USAGE_THRESHOLD_REACHED,
        "tokens",
        thresholds("1000", "240000", "280000", "320000", notify_on=BOTH),
        customer="umbrella",
        evaluate_on_create=False,
    ),
)
