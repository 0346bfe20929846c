"""The script of the demo's billing system: customers, alerts on their balances, invoices and plans, and each step."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from demo import definitions
from demo.billing_steps import (
    DRAFT,
    ISSUED,
    AdjustBalance,
    PutBalance,
    PutInvoice,
    PutPlanEnd,
    Step,
    VoidBalance,
    Wait,
)
from demo.definitions import AlertDefinition, Customer, Event, thresholds
from tests.reference.balances import (
    COMMIT,
    CONTRACT_CREDIT,
    CREDIT_GRANT,
    LICENSE_ALLOTMENT,
    SEAT_CREDIT,
    Span,
    Terms,
)
from tests.reference.facts import VOID, Invoice
from tests.reference.periods import month_of_end
from tests.reference.thresholds import BOTH

CURRENCY = "CREDITS"  # a pricing unit that nothing else in the demo uses
MINUTES = "gpu_minutes"
TIME_TO_END = timedelta(seconds=6)  # of what ends while the demo runs
PAUSE = timedelta(seconds=1)  # between that end and the beginning of the next segment

CUSTOMERS = tuple(
    Customer(name, currency=CURRENCY)
    for name in ("wayne", "stark", "cyberdyne", "tyrell", "oscorp", "soylent", "weyland", "nakatomi")
)


def _alert(name: str, condition: str, customer: str, values: str, measured: str = CURRENCY) -> AlertDefinition:
    """An alert with fixed thresholds at the values, which are separated by spaces."""
    found = thresholds(*values.split(), notify_on=BOTH)
    return AlertDefinition(name, condition, measured, found, customer=customer)


def _alert_at_zero(name: str, condition: str, customer: str) -> AlertDefinition:
    """An alert that takes no thresholds: its own is 0."""
    return AlertDefinition(name, condition, CURRENCY, thresholds("0"), customer=customer)


ALERTS = (
    _alert("Commits of wayne", definitions.LOW_REMAINING_COMMIT_BALANCE_REACHED, "wayne", "150 75 10"),
    _alert("Commits of wayne, percent", definitions.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED, "wayne", "66.6 25"),
    _alert("Credits of wayne", definitions.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED, "wayne", "50 20"),
    _alert(
        "Credits of wayne, percent", definitions.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED, "wayne", "50 10"
    ),
    AlertDefinition(
        "Commits and credits by region",
        definitions.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED,
        CURRENCY,
        thresholds("60", "15", notify_on=BOTH),
        customer="wayne",
        divide_by="region",
    ),
    AlertDefinition(
        "All but the eu, percent",
        definitions.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED,
        CURRENCY,
        thresholds("60", "20", notify_on=BOTH),
        customer="wayne",
        excluded=("region", "eu"),
    ),
    AlertDefinition(
        "Promotional credit of stark",
        definitions.LOW_CREDIT_BALANCE_REACHED,
        CURRENCY,
        thresholds("20", "4.5", notify_on=BOTH),
        customer="stark",
        types=("promotional",),
    ),
    _alert("Credit of stark, percent", definitions.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED, "stark", "50 12.5"),
    _alert_at_zero("Credit of stark is depleted", definitions.CREDIT_BALANCE_DEPLETED, "stark"),
    _alert("Credit of stark drops", definitions.CREDIT_BALANCE_DROPPED, "stark", "40 15"),
    _alert_at_zero("Credit of stark recovers", definitions.CREDIT_BALANCE_RECOVERED, "stark"),
    AlertDefinition(
        "Every seat of cyberdyne",
        definitions.LOW_REMAINING_SEAT_BALANCE_REACHED,
        CURRENCY,
        thresholds("12", "3", notify_on=BOTH),
        customer="cyberdyne",
        seat_key="user",
    ),
    AlertDefinition(
        "Editor licences of tyrell",
        definitions.LICENSE_BALANCE_THRESHOLD_REACHED,
        definitions.PERCENT,
        thresholds("50", "80", "100", notify_on=BOTH),
        customer="tyrell",
        types=("editor",),
    ),
    _alert("Month of oscorp", definitions.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED, "oscorp", "100 250"),
    AlertDefinition(
        "Usage invoices of oscorp",
        definitions.INVOICE_TOTAL_REACHED,
        CURRENCY,
        thresholds("90", "149.99", notify_on=BOTH),
        customer="oscorp",
        types=("USAGE",),
    ),
    # A hundred-thousandth of a day is 0.864 seconds.
    _alert(
        "Days of soylent's commit",
        definitions.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED,
        "soylent",
        "30 0.00002 0",
        definitions.DAYS,
    ),
    _alert("Commits of soylent", definitions.LOW_REMAINING_COMMIT_BALANCE_REACHED, "soylent", "25"),
    _alert(
        "Days of weyland's credit",
        definitions.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED,
        "weyland",
        "7 0.00003",
        definitions.DAYS,
    ),
    _alert(
        "Days in nakatomi's plan",
        definitions.LOW_REMAINING_DAYS_IN_PLAN_REACHED,
        "nakatomi",
        "14 0.00001",
        definitions.DAYS,
    ),
)


def script(clock: Callable[[], datetime], seed: int) -> Iterator[Step]:
    """The steps of the billing system, and the usage between them; the same for the same seed.

    What ends during the demo is posted first, so that the other steps pass the time.
    """
    draw = random.Random(seed)
    began = clock()
    past, later = began - timedelta(days=3), began + timedelta(days=45)
    ends = clock() + TIME_TO_END
    next_segment = (Fraction(70), ends + PAUSE, None)
    yield _put("soylent", "green", COMMIT, (Fraction(50), past, ends), next_segment)
    yield _put("weyland", "yutani", CONTRACT_CREDIT, (Fraction(9), past, ends))
    yield PutPlanEnd("nakatomi", "plaza", ends)

    yield from _wayne(clock, draw, past, later)
    yield from _stark(clock, draw, past)
    yield from _cyberdyne(clock, draw, past)
    yield from _tyrell(clock, draw, past)
    yield from _oscorp(began)

    yield Wait(ends + 2 * PAUSE)
    extended = began + timedelta(days=90)
    yield _put("soylent", "green", COMMIT, (Fraction(50), past, extended), next_segment)
    yield _put("weyland", "yutani", CONTRACT_CREDIT, (Fraction(9), past, extended))
    yield PutPlanEnd("nakatomi", "plaza", extended)


def _put(customer: str, balance_id: str, kind: str, *spans: Span, **terms: Any) -> PutBalance:
    """A balance in CURRENCY is put. terms: the other fields of Terms."""
    return PutBalance(customer, Terms(balance_id, kind, **{"unit": ("cost", CURRENCY)} | terms), spans)


def _wayne(clock: Callable[[], datetime], draw: random.Random, start: datetime, later: datetime) -> Iterator[Step]:
    """Usage draws on commits and contract credits by priority, then on the one that ends first."""
    for balance_id, kind, amount, priority, end, fields in (
        ("base", COMMIT, 120, 2, None, {"region": "eu"}),
        ("extra", COMMIT, 80, 2, later, {}),
        ("welcome", CONTRACT_CREDIT, 60, 1, None, {"region": "us"}),
        ("goodwill", CONTRACT_CREDIT, 40, 3, None, {"region": "eu"}),
    ):
        yield _put("wayne", balance_id, kind, (Fraction(amount), start, end), priority=priority, fields=fields)
    yield from _usage("wayne", clock, draw, 60, 6)
    yield AdjustBalance("wayne", "base", Fraction("-15.75"))
    yield from _usage("wayne", clock, draw, 40, 6)
    yield AdjustBalance("wayne", "extra", Fraction(35))
    yield VoidBalance("wayne", "goodwill")
    yield from _usage("wayne", clock, draw, 60, 6)
    yield _put("wayne", "renewal", COMMIT, (Fraction(90), start, None), fields={"region": "us"})
    yield from _usage("wayne", clock, draw, 40, 6)


def _stark(clock: Callable[[], datetime], draw: random.Random, start: datetime) -> Iterator[Step]:
    """Credit grants are used up, granted again, and used up."""
    for number, (kind, amount) in enumerate((("promotional", 30), ("paid", 50), ("promotional", 25), ("paid", 12))):
        span = Fraction(amount), start, None
        yield _put("stark", f"grant-{number}", CREDIT_GRANT, span, type=kind, priority=number)
        if number:
            yield from _usage("stark", clock, draw, 30, 6)
    yield AdjustBalance("stark", "grant-3", Fraction(16))
    yield Event("stark-last", "stark", MINUTES, "1", clock(), cost="500", currency=CURRENCY)


def _cyberdyne(clock: Callable[[], datetime], draw: random.Random, start: datetime) -> Iterator[Step]:
    """Usage of a seat draws on the seat's credit first, then on the commit."""
    seats = ("miles", "sarah", "john")
    for seat in seats:
        yield _put("cyberdyne", f"seat-{seat}", SEAT_CREDIT, (Fraction(30), start, None), seat=("user", seat))
    yield _put("cyberdyne", "pool", COMMIT, (Fraction(40), start, None))
    yield from _usage("cyberdyne", clock, draw, 60, 5, seats)


def _tyrell(clock: Callable[[], datetime], draw: random.Random, start: datetime) -> Iterator[Step]:
    """A licence allows so many minutes; an adjustment lowers the share that is used."""
    span = Fraction(200), start, None
    yield _put("tyrell", "nexus", LICENSE_ALLOTMENT, span, unit=("usage", MINUTES), type="editor")
    for round_ in range(2):
        for number in range(40):
            quantity = str(draw.randint(2, 11))
            yield Event(f"tyrell-{round_}-{number:03}", "tyrell", MINUTES, quantity, clock())
        yield AdjustBalance("tyrell", "nexus", Fraction(150))


def _oscorp(now: datetime) -> Iterator[Step]:
    """Invoices grow from drafts, are corrected, and voided; one belongs to the month before."""
    before = month_of_end(now) - timedelta(days=2)
    for invoice_id, kind, status, total, period_end in (
        ("inv-1", "USAGE", DRAFT, "60.10", now),
        ("inv-1", "USAGE", DRAFT, "90", now),
        ("inv-2", "SCHEDULED", ISSUED, "10", now),
        ("inv-1", "USAGE", ISSUED, "150.00", now),
        ("inv-0", "USAGE", ISSUED, "310.25", before),
        ("inv-3", "SCHEDULED", ISSUED, "95.5", now),
        ("inv-1", "USAGE", ISSUED, "89.99", now),
        ("inv-3", "SCHEDULED", VOID, "95.5", now),
        ("inv-0", "USAGE", VOID, "310.25", before),
    ):
        yield PutInvoice("oscorp", Invoice(invoice_id, kind, status, CURRENCY, Fraction(total), period_end))


def _usage(
    customer: str,
    clock: Callable[[], datetime],
    draw: random.Random,
    count: int,
    most: int,
    seats: Sequence[str] = (),
) -> Iterator[Event]:
    """Events that cost up to `most` each; some are corrections."""
    for number in range(count):
        cents = draw.randint(1, 100 * most)
        if draw.random() < 0.15:
            cents = -cents
        yield Event(
            event_id=f"{customer}-{draw.getrandbits(40):010x}-{number:03}",
            customer=customer,
            metric=MINUTES,
            quantity="1",
            time=clock(),
            cost=f"{Decimal(cents) / 100:f}",
            currency=CURRENCY,
            properties={"user": draw.choice(seats)} if seats else {},
        )
