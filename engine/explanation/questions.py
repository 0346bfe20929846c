"""What is asked of explanations and series, and what is found first."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from engine.explanation.coverage import Owner
from evaluator.alerts import AlertRule
from evaluator.definitions import AlertDefinition
from evaluator.routing_facts import CustomerFacts, SubscriptionFacts
from evaluator.watched_gauges import WatchedGauge
from store.postgres.database import DriverConnection
from store.views.customer_alerts import GaugeSelection


@dataclass(frozen=True)
class Question:
    """What is asked. period_time: in the period that is explained; None: now."""

    alert_id: str
    customer_id: str
    selection: GaugeSelection
    period_time: datetime | None = None


class NotOfUsage(Exception):
    """The alert measures neither usage nor cost; the argument is its id."""


class NotCovered(Exception):
    """The alert does not cover the customer; the argument is its id."""


@dataclass(frozen=True)
class FoundGauge:
    """A gauge of usage or cost, as the evaluation watches it. value: as it is stored; None if it is not."""

    watch: WatchedGauge
    value: Decimal | None


class Found(NamedTuple):
    """An alert, a customer, and those of its subscriptions that the alert can measure."""

    raw: DriverConnection
    definition: AlertDefinition
    rule: AlertRule
    facts: CustomerFacts
    subscriptions: list[SubscriptionFacts]
    owners: list[Owner]
