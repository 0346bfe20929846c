"""The reference model of enforced limits: which limits usage meets, and what their meters count of it.

Slow and obvious on purpose: nothing is kept, and everything is found anew from the customers and limits of now.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from tests.reference.balances import ZERO, Unit
from tests.reference.gauges import COUNT, Event

NONE, SOFT, HARD = "NONE", "SOFT", "HARD"
MONTH, DAY, HOUR, ROLLING = "MONTH", "DAY", "HOUR", "ROLLING"
ROLLING_MINUTES = 60
ALWAYS = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Limit:
    """A limit of a customer or of a plan. groups: keys, each with a value, or None for all values."""

    holder: str
    of_plan: bool
    unit: Unit
    groups: tuple[tuple[str, str | None], ...]
    window: str
    amount: Fraction
    enforcement: str

    @property
    def limit_id(self) -> str:
        """Says what distinguishes it from others of its holder."""
        groups = "".join(f"-{key}:{value or '*'}" for key, value in self.groups)
        return f"{self.holder}-{self.unit[1]}{groups}-{self.window}"

    @property
    def kind(self) -> tuple[Unit, tuple[str, ...], str]:
        """Of the limits of one kind only one applies."""
        return self.unit, tuple(key for key, _ in self.groups), self.window

    def fits(self, event: Event) -> bool:
        """Whether it applies to usage with these properties."""
        properties = dict(event.properties)
        return all(key in properties and value in (None, properties[key]) for key, value in self.groups)


@dataclass(frozen=True)
class Meter:
    """What a limit counts. subscription: None counts all. span: of its window; None: it rolls."""

    customer: str
    subscription: str | None
    unit: Unit
    group: tuple[tuple[str, str], ...]
    window: str
    span: tuple[datetime, datetime] | None


@dataclass(frozen=True)
class Met:
    """A limit that usage meets. level: 0 for the customer's own, 1 for its parent's and so on."""

    limit: Limit
    meter: Meter
    level: int


class LimitModel:
    """The customers and limits of one organization.

    parents, plans: by customer, those that have one. subscriptions: the plan of each that has one, by customer and
    id. zones: hours by which the time of a customer is ahead, of those where it is. aggregations: by metric, those
    that are no sums.
    """

    def __init__(self, parents: dict[str, str], plans: dict[str, str], aggregations: dict[str, str]) -> None:
        self.parents = parents
        self.plans = plans
        self.aggregations = aggregations
        self.subscriptions: dict[tuple[str, str], str] = {}
        self.zones: dict[str, Fraction] = {}
        self.limits: dict[str, Limit] = {}

    def chain(self, customer: str) -> list[str]:
        """A customer, and those above it."""
        found = [customer]
        while found[-1] in self.parents:
            found.append(self.parents[found[-1]])
        return found

    def counts(self, meter: Meter, event: Event, first: datetime) -> bool:
        """Whether a meter counts usage. first: the time from which on a rolling window does."""
        if meter.customer not in self.chain(event.customer) or not set(meter.group) <= set(event.properties):
            return False
        if meter.subscription not in (None, event.subscription):
            return False
        if meter.unit[1] not in (event.metric, None if event.cost is None else event.currency):
            return False
        start, end = meter.span or (first, ALWAYS[1])
        return start <= event.time < end

    def amount(self, event: Event, unit: Unit) -> Fraction:
        """The amount of usage in a unit."""
        if unit[0] == "cost":
            return event.cost or ZERO
        if self.aggregations.get(event.metric) == COUNT:
            return Fraction(-1 if event.quantity < 0 else 1)
        return event.quantity

    def met(self, usage: Event) -> Iterable[Met]:
        """Of limits that differ only in the values of their groups, the one that names most; own ones first."""
        subscription = usage.subscription
        holders: list[tuple[str, str | None, str | None, int]] = [
            (customer, None, self.plans.get(customer), level)
            for level, customer in enumerate(self.chain(usage.customer))
        ]
        if subscription is not None:
            holders.append((usage.customer, subscription, self.subscriptions.get((usage.customer, subscription)), 0))
        for customer, of_subscription, plan_id, level in holders:
            own = self._of(customer, of_plan=False) if of_subscription is None else []
            plan = self._of(plan_id, of_plan=True)
            for kind in dict.fromkeys(one.kind for one in (*own, *plan)):
                unit, keys, window = kind
                if unit[1] not in (usage.metric, None if usage.cost is None else usage.currency):
                    continue
                fitting = [one for one in own if one.kind == kind and one.fits(usage)]
                fitting = fitting or [one for one in plan if one.kind == kind and one.fits(usage)]
                if not fitting:
                    continue
                best = max(fitting, key=lambda one: sum(value is not None for _, value in one.groups))
                if best.enforcement == NONE:
                    continue
                group = tuple((key, dict(usage.properties)[key]) for key in keys)
                span = None if window == ROLLING else span_of(window, usage.time, self.zones.get(customer, ZERO))
                yield Met(best, Meter(customer, of_subscription, unit, group, window, span), level)

    def _of(self, holder: str | None, *, of_plan: bool) -> list[Limit]:
        return [one for one in self.limits.values() if (one.holder, one.of_plan) == (holder, of_plan)]


def span_of(window: str, time: datetime, hours: Fraction) -> tuple[datetime, datetime]:
    """When the window that contains `time` starts and ends, in UTC, where the time is so many hours ahead."""
    ahead = timedelta(hours=float(hours))
    start = (time.astimezone(UTC) + ahead).replace(minute=0, second=0, microsecond=0)
    if window == HOUR:
        end = start + timedelta(hours=1)
    elif window == DAY:
        start = start.replace(hour=0)
        end = start + timedelta(days=1)
    else:
        start = start.replace(hour=0, day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    return start - ahead, end - ahead


def first_minute(now: datetime) -> datetime:
    """The first minute of a rolling window: the one in which its duration ago is."""
    return now.astimezone(UTC).replace(second=0, microsecond=0) - timedelta(minutes=ROLLING_MINUTES)
