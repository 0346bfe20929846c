"""Real input for the demo: a file of LLM requests becomes usage events, and plain sums to compare the gauges with.

A row holds the time of a request and its tokens in and out. Each row is two events, one for each metric, with a cost.
The customer is a stable hash of the row.
"""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from demo.definitions import (
    SPEND_THRESHOLD_REACHED,
    USAGE_EXCEEDED,
    USAGE_THRESHOLD_REACHED,
    AlertDefinition,
    Customer,
    Event,
    Subscription,
    thresholds,
)
from tests.reference.gauges import Metric
from tests.reference.periods import Cycle
from tests.reference.thresholds import BOTH, Threshold

COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
CUSTOMERS = 50
TOKENS_IN, TOKENS_OUT, CURRENCY = "tokens_in", "tokens_out", "USD"
PRICES = {TOKENS_IN: Decimal("0.0000025"), TOKENS_OUT: Decimal("0.00001")}  # USD a token
LONG_PROMPT = 1_000  # tokens in from which a prompt counts as long

METRICS = (Metric(TOKENS_IN), Metric(TOKENS_OUT))
SUBSCRIPTION = "api"


class BadTrace(Exception):
    """The file is not such a trace; the message says where and why."""


@dataclass(frozen=True)
class Request:
    """A row of the file. text: as it stands there."""

    number: int
    text: str
    time: datetime
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Trace:
    """The requests of a file, moved by whole days to the latest past."""

    requests: tuple[Request, ...]
    shift_days: int

    @property
    def middle(self) -> datetime:
        """A time with requests before and after it: the start of a minute."""
        return self.requests[len(self.requests) // 2].time.replace(second=0, microsecond=0)


def read(path: Path, now: datetime) -> Trace:
    """Reads a trace; raises BadTrace."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != COLUMNS:
            raise BadTrace(f"the first line of {path} is not {','.join(COLUMNS)}")
        requests = []
        for number, row in enumerate(rows, start=1):
            try:
                stamp, tokens_in, tokens_out = row
                # Seven digits of a second; the last one is cut off.
                time = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
                requests.append(Request(number, ",".join(row), time, int(tokens_in), int(tokens_out)))
            except ValueError as error:
                raise BadTrace(f"line {rows.line_num} of {path}: {error}") from None
    if not requests:
        raise BadTrace(f"{path} holds no requests")
    shift_days = (now - max(request.time for request in requests)) // timedelta(days=1)
    moved = (
        Request(one.number, one.text, one.time + timedelta(days=shift_days), one.tokens_in, one.tokens_out)
        for one in requests
    )
    return Trace(tuple(moved), shift_days)


def customer_of(request: Request) -> str:
    """The customer of a row: the same in every run, on every machine."""
    digest = hashlib.blake2b(f"{request.number},{request.text}".encode(), digest_size=8).digest()
    return f"customer-{int.from_bytes(digest) % CUSTOMERS:02}"


def customers(trace: Trace) -> tuple[Customer, ...]:
    """Half of them are in the middle of a period; for the others a new one begins in the middle of the trace."""
    start = min(request.time for request in trace.requests)
    whole = Cycle(start.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=10), "week", 4)
    split = Cycle(trace.middle, "week", 2)
    return tuple(
        Customer(
            f"customer-{number:02}",
            plan="metered" if number % 3 else "enterprise",
            cycle=split if number % 2 else whole,
            subscriptions=(Subscription(SUBSCRIPTION, "metered"),),
        )
        for number in range(CUSTOMERS)
    )


ALERTS = (
    AlertDefinition(
        "Spend of every customer",
        SPEND_THRESHOLD_REACHED,
        CURRENCY,
        (*thresholds("0.25", "0.5", "1"), Threshold(step=Fraction("0.25"))),
    ),
    AlertDefinition("Tokens in", USAGE_THRESHOLD_REACHED, TOKENS_IN, thresholds("100000", "250000", "400000")),
    AlertDefinition("Tokens out", USAGE_THRESHOLD_REACHED, TOKENS_OUT, thresholds("25000", "75000")),
    AlertDefinition(
        "Spend by prompt length, plan enterprise",
        SPEND_THRESHOLD_REACHED,
        CURRENCY,
        thresholds("0.3", "0.9"),
        plan="enterprise",
        groups=(("prompt", None),),
    ),
    AlertDefinition(
        "Tokens out of a metered subscription",
        USAGE_EXCEEDED,
        TOKENS_OUT,
        thresholds("50000", notify_on=BOTH),
        plan="metered",
    ),
)


def events(trace: Trace) -> Iterator[Event]:
    """Two events for each row."""
    for request in trace.requests:
        customer = customer_of(request)
        prompt = "long" if request.tokens_in >= LONG_PROMPT else "short"
        for metric, tokens in ((TOKENS_IN, request.tokens_in), (TOKENS_OUT, request.tokens_out)):
            yield Event(
                event_id=f"row-{request.number}-{metric}",
                customer=customer,
                metric=metric,
                quantity=str(tokens),
                time=request.time,
                subscription=SUBSCRIPTION,
                cost=f"{tokens * PRICES[metric]:f}",
                currency=CURRENCY,
                properties={"prompt": prompt},
            )


def sums(trace: Trace) -> dict[tuple[str, str, bool], Decimal]:
    """For each customer and what is measured: the plain sum over the file, before and (True) from the middle on.

    Customers whose period does not change in the middle have everything under True.
    """
    found: dict[tuple[str, str, bool], Decimal] = {}
    for request in trace.requests:
        customer = customer_of(request)
        current = int(customer[-2:]) % 2 == 0 or request.time >= trace.middle
        cost = request.tokens_in * PRICES[TOKENS_IN] + request.tokens_out * PRICES[TOKENS_OUT]
        for measured, amount in (
            (TOKENS_IN, Decimal(request.tokens_in)),
            (TOKENS_OUT, Decimal(request.tokens_out)),
            (CURRENCY, cost),
        ):
            key = (customer, measured, current)
            found[key] = found.get(key, Decimal(0)) + amount
    return found
