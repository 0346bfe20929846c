"""What happens in the story: random events, alerts and changes, with few values, so that most of them interact."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from random import Random

from tests.reference.alerts import Alert
from tests.reference.gauges import Event, Fields, Metric
from tests.reference.thresholds import BOTH, REACHED, RESOLVED, Threshold
from tests.support.usage.draws import DAYS_AGO, FIELDS, KEYS, METRICS, PRICES, QUANTITIES, VALUES

Measure = tuple[str, str]

STORY_METRICS: list[Metric] = [METRICS[name] for name in ("sum", "count", "max", "latest", "unique", "raw sum")]
SPEND: Measure = ("cost", "USD")
SUBSCRIPTIONS = ("s1", "s2")
PLANS = ("gold", "silver")
LEVELS = [*map(Fraction, range(-1, 26)), Fraction("9.999999999999999999")]
AMOUNTS = [*map(Fraction, (4, 10, 25, 60))]  # of limits
PERCENTAGES = [*map(Fraction, (50, 80, 100))]
NOTIFY_ON = [frozenset({REACHED}), BOTH, BOTH, frozenset({RESOLVED})]

MOVES = ("move", "move", "move", "more", "less", "all", "notify")


class Draws:
    """Random values of one client. The same seed draws the same values."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)

    def one_in(self, number: int) -> bool:
        """True in one of that number of cases."""
        return self.random.randrange(number) == 0

    def metric_of(self, customer: str) -> Metric:
        """A metric that the customer uses: one of two, so that its events and its alerts often have the same."""
        first = sum(customer.encode()) % len(STORY_METRICS)
        return STORY_METRICS[(first + self.random.choice((0, 0, 2))) % len(STORY_METRICS)]

    def event(self, event_id: str, customer: str, now: datetime) -> Event:
        """A new event of the customer."""
        random = self.random
        metric = self.metric_of(customer)
        raw = bool(metric.event_name) and random.random() < 0.5
        cost = random.choice([*QUANTITIES, None, None])
        properties = {"region": random.choice(("eu", "us")), "seat": random.choice("1234")}
        for key, values in (("size", ("3", "-2", "7", "x")), ("tier", "ab"), ("price_id", "pq"), ("item_id", "p")):
            if random.random() < 0.5:
                properties[key] = random.choice(values)
        # Some events are of one time, so that their ids decide what LATEST shows.
        age = timedelta(days=random.choice([0, 0, *DAYS_AGO]), microseconds=random.randrange(8))
        return Event(
            event_id,
            customer,
            now - age,
            "" if raw else metric.metric_id,
            random.choice(QUANTITIES),
            random.choice((None, *SUBSCRIPTIONS)),
            cost,
            None if cost is None else random.choice(("USD", "USD", "USD", "EUR")),
            () if self.one_in(10) else tuple(sorted(properties.items())),
            metric.event_name if raw else "",
        )

    def thresholds(self, *, percentages: bool = False) -> tuple[Threshold, ...]:
        """The thresholds of an alert. percentages: whether some of them may be percentages of a limit."""
        random = self.random
        chosen = []
        for value in random.sample(LEVELS, random.randint(1, 3)):
            resolve = value - random.randint(1, 6) if self.one_in(3) else None
            chosen.append(Threshold(value, resolve=resolve, notify_on=random.choice(NOTIFY_ON)))
        if self.one_in(4):
            chosen = [*chosen[:2], Threshold(step=Fraction(random.randint(3, 9)), notify_on=random.choice(NOTIFY_ON))]
        if percentages:
            for percent in random.sample(PERCENTAGES, random.randint(1, 2)):
                chosen.append(Threshold(percent=percent, notify_on=random.choice(NOTIFY_ON)))
        random.shuffle(chosen)
        return tuple(chosen)

    def moved(self, alert: Alert) -> tuple[Threshold, ...]:
        """Other thresholds of the alert: one is raised, lowered, removed, added, or notifies of something else."""
        random = self.random
        thresholds = list(alert.thresholds)
        place = random.randrange(len(thresholds))
        one = thresholds[place]
        match random.choice(MOVES):
            case "move" if one.value is not None:
                by = random.randint(-6, 6)
                resolve = None if one.resolve is None else one.resolve + by
                thresholds[place] = replace(one, value=one.value + by, resolve=resolve)
            case "more":
                thresholds.append(Threshold(random.choice(LEVELS), notify_on=random.choice(NOTIFY_ON)))
            case "less" if len(thresholds) > 1:
                del thresholds[place]
            case "notify":
                thresholds[place] = replace(one, notify_on=random.choice(NOTIFY_ON))
            case _:
                thresholds = list(self.thresholds(percentages=self.one_in(3)))
        fixed = [item.value for item in thresholds if item.value is not None]
        return tuple(thresholds) if len(set(fixed)) == len(fixed) else self.thresholds()

    def own_alert(self, name: str, customer: str) -> Alert:
        """An alert that names the customer."""
        kinds = [
            ("customer", customer),
            ("customer", customer),
            ("customer plan", customer, self.random.choice(PLANS)),
        ]
        if self.one_in(2):
            scope: tuple[str, ...] = self.random.choice(kinds)
            return self._alert(name, self.measure(customer), scope, per_subscription=False)
        kinds = [kinds[-1], *[("subscription", customer, one) for one in SUBSCRIPTIONS]]
        return self._alert(name, self.measure(customer), self.random.choice(kinds), per_subscription=True)

    def wide_alert(self, name: str) -> Alert:
        """An alert of all customers or of a plan."""
        measure = SPEND if self.one_in(2) else ("usage", self.random.choice(STORY_METRICS).metric_id)
        plan = "plan", self.random.choice(PLANS)
        if self.one_in(3):
            return self._alert(name, measure, plan, per_subscription=True)
        return self._alert(name, measure, self.random.choice([plan, ("all",)]), per_subscription=False)

    def measure(self, customer: str) -> Measure:
        """What an alert or a limit of the customer measures."""
        return SPEND if self.one_in(3) else ("usage", self.metric_of(customer).metric_id)

    def _alert(self, name: str, measure: Measure, scope: tuple[str, ...], *, per_subscription: bool) -> Alert:
        random = self.random
        spend = measure == SPEND
        keys = KEYS if not per_subscription else KEYS[:4] if spend else KEYS[:1]
        chosen = random.choice(keys)
        overridden: list[tuple[tuple[tuple[str, str], ...], tuple[Threshold, ...]]] = []
        if per_subscription and chosen and self.one_in(2):
            key = random.choice(chosen)[0]
            overridden.append((((key, VALUES[key]),), random.choice([(), self.thresholds()])))
        no_fields: Fields = frozenset()
        return Alert(
            name=name,
            measure=measure,
            per_subscription=per_subscription,
            scope=scope,
            keys=chosen,
            thresholds=self.thresholds(percentages=not chosen and self.one_in(2)),
            evaluate=not self.one_in(4),
            prices=random.choice(PRICES) if spend and per_subscription and self.one_in(3) else frozenset(),
            overrides=tuple(overridden),
            contract=random.choice(FIELDS) if spend and not per_subscription and self.one_in(3) else no_fields,
        )


def clash(first: Alert, second: Alert) -> bool:
    """Whether the service may refuse the one because of the other: alerts of one subscription that measure alike."""
    return (
        first.per_subscription
        and second.per_subscription
        and (first.scope, first.measure) == (second.scope, second.measure)
    )


def some(random: Random, items: Sequence[str], most: int) -> list[str]:
    """Some of the items, at most that number."""
    return random.sample(items, min(len(items), random.randint(1, most)))
