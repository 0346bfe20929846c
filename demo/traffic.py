"""A generated month of usage, the same for the same seed: duplicates, corrections, late and bad events included."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from demo.definitions import Customer, Event

DAYS = 30  # of usage, up to now

DUPLICATES = 0.02  # of the events are sent again as they were
CONFLICTS = 0.004  # are sent again with another quantity
LATE = 0.02  # arrive up to LATEST_DELAY after their time
CORRECTIONS = 0.02  # take something back
BAD = 0.012  # cannot be counted at all
MEMORY = 400  # events back that a repetition reaches
LATEST_DELAY = timedelta(days=6)

_PRICES = {"small": Decimal("0.0006"), "large": Decimal("0.0025")}  # a token
_REGIONS = ("eu", "us", "ap")
_TEAMS = ("red", "blue", "green")
_WEIGHTS = {"tokens": 55, "api_calls": 12, "storage_gb": 8, "seats": 10, "active_users": 15}


@dataclass(frozen=True)
class Sent:
    """An event to send; reason: why it has to be rejected, by its ErrorReason. Empty: it is well formed."""

    event: Event
    reason: str = ""


class Traffic:
    """Makes the events of one month, the same for the same seed, customers and time."""

    def __init__(self, customers: tuple[Customer, ...], now: datetime, count: int, seed: int) -> None:
        self._customers = customers
        self._now = now
        self._count = count
        self._random = random.Random(seed)
        self._recent: list[Event] = []
        self._number = 0
        self._flaw = 0
        self._shapes: dict[str, Callable[[Event, Customer], Event]] = {
            "tokens": self._tokens,
            "api_calls": self._api_calls,
            "storage_gb": self._storage_gb,
            "seats": self._seats,
            "active_users": self._active_users,
        }
        self._seat_count = {customer.customer_id: 15 for customer in customers}

    def __iter__(self) -> Iterator[Sent]:
        """The events in the order in which they are sent."""
        chance, start = self._random.random, self._now - timedelta(days=DAYS)
        step = timedelta(days=DAYS) / self._count
        for number in range(self._count):
            time = start + step * (number + chance() * 0.9)
            if self._recent and chance() < DUPLICATES:
                yield Sent(self._random.choice(self._recent))
            if self._recent and chance() < CONFLICTS:
                known = self._random.choice(self._recent)
                yield Sent(replace(known, quantity=known.quantity + "7"), "EVENT_CONFLICT")
            if chance() < BAD:
                yield self._bad(time)
            event = self._event(time)
            self._recent = [*self._recent[1 - MEMORY :], event]
            yield Sent(event)

    def _event(self, time: datetime) -> Event:
        chance = self._random
        if chance.random() < LATE:
            time = max(time - LATEST_DELAY * chance.random(), self._now - timedelta(days=DAYS))
        self._number += 1
        customer = chance.choice(self._customers)
        subscription = ""
        if customer.subscriptions and chance.random() < 0.8:
            subscription = chance.choice(customer.subscriptions).subscription_id
        metric = chance.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
        event = Event(
            event_id=f"usage-{self._number:06}",
            customer=customer.customer_id,
            metric=metric,
            quantity="1",
            time=time,
            subscription=subscription,
            properties={"region": chance.choice(_REGIONS), "team": chance.choice(_TEAMS)},
        )
        return self._shapes[metric](event, customer)

    def _tokens(self, event: Event, customer: Customer) -> Event:
        model = self._random.choice(tuple(_PRICES))
        quantity = Decimal(self._random.randint(100, 3_000))
        if self._random.random() < CORRECTIONS:
            quantity = -10 * quantity
        return replace(
            event,
            quantity=f"{quantity:f}",
            cost=f"{quantity * _PRICES[model]:f}",
            # Without one it is the customer's currency; both ways have to count alike.
            currency=self._random.choice((customer.currency, "")),
            properties={**event.properties, "model": model},
        )

    def _api_calls(self, event: Event, customer: Customer) -> Event:
        return replace(event, quantity=str(self._random.randint(1, 9)))

    def _storage_gb(self, event: Event, customer: Customer) -> Event:
        return replace(event, quantity=f"{Decimal(self._random.randint(100, 900)) / 10:f}")

    def _seats(self, event: Event, customer: Customer) -> Event:
        walked = self._seat_count[customer.customer_id] + self._random.randint(-4, 4)
        self._seat_count[customer.customer_id] = seats = min(35, max(5, walked))
        return replace(event, quantity=str(seats))

    def _active_users(self, event: Event, customer: Customer) -> Event:
        return replace(event, properties={**event.properties, "user_id": f"user-{self._random.randint(1, 40)}"})

    def _bad(self, time: datetime) -> Sent:
        """The next kind of bad event; they take turns, so that every kind comes."""
        self._number += 1
        good = replace(self._event(time), event_id=f"bad-{self._number:06}", time=time)
        flaws = (
            replace(good, quantity="1e999"),
            replace(good, quantity="NaN"),
            replace(good, quantity="1" * 60),
            replace(good, quantity=""),
            replace(good, customer=""),
            replace(good, customer="ac\x00me"),
            replace(good, metric=" tokens"),
            replace(good, event_id="x" * 200),
            replace(good, cost="", currency="USD"),
            replace(good, properties={"region": "e" * 300}),
            replace(good, time=self._now + timedelta(hours=1)),
            replace(good, time=self._now - timedelta(days=100), customer="acme", subscription=""),
            replace(good, time=self._now - timedelta(days=3_000)),
        )
        flaw = flaws[self._flaw % len(flaws)]
        self._flaw += 1
        if flaw.time > good.time:
            return Sent(flaw, "EVENT_IN_FUTURE")
        return Sent(flaw, "EVENT_TOO_OLD" if flaw.time < good.time else "EVENT_INVALID")
