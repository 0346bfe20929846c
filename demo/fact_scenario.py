"""The demo's billing system: customers with balances, seats, licences, invoices, plans, and what becomes of them."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from demo import posted, world
from demo.books import month_of
from demo.posted import Adjustment, Grant, PlanEnd, Posting, Span, Step, Voiding, Wait
from demo.world import BOTH, AlertPlan, Customer, Event, Line

CURRENCY = "CREDITS"  # a pricing unit that nothing else in the demo uses
MINUTES = "gpu_minutes"
SHORTLY = timedelta(seconds=6)  # to the end of what ends while the demo watches
THEN = timedelta(seconds=1)  # after that, what follows begins

CUSTOMERS = tuple(
    Customer(name, currency=CURRENCY)
    for name in ("wayne", "stark", "cyberdyne", "tyrell", "oscorp", "soylent", "weyland", "nakatomi")
)


def _plan(name: str, condition: str, customer: str, lines: str = "0", measured: str = CURRENCY) -> AlertPlan:
    drawn = tuple(Line(Decimal(line), tell=BOTH) for line in lines.split())
    return AlertPlan(name, condition, measured, drawn, customer=customer)


def _edge(name: str, condition: str, customer: str) -> AlertPlan:
    """An alert that draws no lines: its own is at 0."""
    return AlertPlan(name, condition, CURRENCY, (Line(Decimal(0)),), customer=customer)


ALERTS = (
    _plan("Commits of wayne", world.LOW_REMAINING_COMMIT_BALANCE_REACHED, "wayne", "150 75 10"),
    _plan("Commits of wayne, percent", world.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED, "wayne", "66.6 25"),
    _plan("Credits of wayne", world.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED, "wayne", "50 20"),
    _plan("Credits of wayne, percent", world.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED, "wayne", "50 10"),
    AlertPlan(
        "Commits and credits by region",
        world.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED,
        CURRENCY,
        (Line(Decimal(60), tell=BOTH), Line(Decimal(15), tell=BOTH)),
        customer="wayne",
        divide_by="region",
    ),
    AlertPlan(
        "All but the eu, percent",
        world.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED,
        CURRENCY,
        (Line(Decimal(60), tell=BOTH), Line(Decimal(20), tell=BOTH)),
        customer="wayne",
        excluded=("region", "eu"),
    ),
    AlertPlan(
        "Promotional credit of stark",
        world.LOW_CREDIT_BALANCE_REACHED,
        CURRENCY,
        (Line(Decimal(20), tell=BOTH), Line(Decimal("4.5"), tell=BOTH)),
        customer="stark",
        types=("promotional",),
    ),
    _plan("Credit of stark, percent", world.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED, "stark", "50 12.5"),
    _edge("Credit of stark is depleted", world.CREDIT_BALANCE_DEPLETED, "stark"),
    _plan("Credit of stark drops", world.CREDIT_BALANCE_DROPPED, "stark", "40 15"),
    _edge("Credit of stark recovers", world.CREDIT_BALANCE_RECOVERED, "stark"),
    AlertPlan(
        "Every seat of cyberdyne",
        world.LOW_REMAINING_SEAT_BALANCE_REACHED,
        CURRENCY,
        (Line(Decimal(12), tell=BOTH), Line(Decimal(3), tell=BOTH)),
        customer="cyberdyne",
        seat_key="user",
    ),
    AlertPlan(
        "Editor licences of tyrell",
        world.LICENSE_BALANCE_THRESHOLD_REACHED,
        world.PERCENT,
        tuple(Line(Decimal(line), tell=BOTH) for line in (50, 80, 100)),
        customer="tyrell",
        types=("editor",),
    ),
    _plan("Month of oscorp", world.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED, "oscorp", "100 250"),
    AlertPlan(
        "Usage invoices of oscorp",
        world.INVOICE_TOTAL_REACHED,
        CURRENCY,
        (Line(Decimal(90), tell=BOTH), Line(Decimal("149.99"), tell=BOTH)),
        customer="oscorp",
        types=("USAGE",),
    ),
    # A hundred-thousandth of a day is 0.864 seconds.
    _plan(
        "Days of soylent's commit",
        world.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED,
        "soylent",
        "30 0.00002 0",
        world.DAYS,
    ),
    _plan("Commits of soylent", world.LOW_REMAINING_COMMIT_BALANCE_REACHED, "soylent", "25"),
    _plan(
        "Days of weyland's credit",
        world.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED,
        "weyland",
        "7 0.00003",
        world.DAYS,
    ),
    _plan("Days in nakatomi's plan", world.LOW_REMAINING_DAYS_IN_PLAN_REACHED, "nakatomi", "14 0.00001", world.DAYS),
)


def script(clock: Callable[[], datetime], seed: int) -> Iterator[Step]:
    """What the billing system does, step by step, and the usage in between; the same for the same seed.

    What ends shortly is posted first, so that the rest passes the time.
    """
    draw = random.Random(seed)
    began = clock()
    long_ago, later = began - timedelta(days=3), began + timedelta(days=45)
    ends = clock() + SHORTLY
    yield Grant(
        "soylent",
        "green",
        posted.COMMIT,
        (Span(Decimal(50), long_ago, ends), Span(Decimal(70), ends + THEN)),
        CURRENCY,
    )
    yield Grant("weyland", "yutani", posted.CONTRACT_CREDIT, (Span(Decimal(9), long_ago, ends),), CURRENCY)
    yield PlanEnd("nakatomi", "plaza", ends)

    yield from _wayne(clock, draw, long_ago, later)
    yield from _stark(clock, draw, long_ago)
    yield from _cyberdyne(clock, draw, long_ago)
    yield from _tyrell(clock, draw, long_ago)
    yield from _oscorp(began)

    yield Wait(ends + 2 * THEN)
    extended = began + timedelta(days=90)
    yield Grant(
        "soylent",
        "green",
        posted.COMMIT,
        (Span(Decimal(50), long_ago, extended), Span(Decimal(70), ends + THEN)),
        CURRENCY,
    )
    yield Grant("weyland", "yutani", posted.CONTRACT_CREDIT, (Span(Decimal(9), long_ago, extended),), CURRENCY)
    yield PlanEnd("nakatomi", "plaza", extended)


def _wayne(clock: Callable[[], datetime], draw: random.Random, start: datetime, later: datetime) -> Iterator[Step]:
    """Commits and contract credits are drawn on by priority, and by what ends first."""
    for balance_id, kind, amount, priority, end, fields in (
        ("base", posted.COMMIT, 120, 2, None, {"region": "eu"}),
        ("extra", posted.COMMIT, 80, 2, later, {}),
        ("welcome", posted.CONTRACT_CREDIT, 60, 1, None, {"region": "us"}),
        ("goodwill", posted.CONTRACT_CREDIT, 40, 3, None, {"region": "eu"}),
    ):
        span = Span(Decimal(amount), start, end)
        yield Grant("wayne", balance_id, kind, (span,), CURRENCY, priority=priority, fields=fields)
    yield from _usage("wayne", clock, draw, 60, 6)
    yield Adjustment("wayne", "base", Decimal("-15.75"))
    yield from _usage("wayne", clock, draw, 40, 6)
    yield Adjustment("wayne", "extra", Decimal(35))
    yield Voiding("wayne", "goodwill")
    yield from _usage("wayne", clock, draw, 60, 6)
    yield Grant("wayne", "renewal", posted.COMMIT, (Span(Decimal(90), start),), CURRENCY, fields={"region": "us"})
    yield from _usage("wayne", clock, draw, 40, 6)


def _stark(clock: Callable[[], datetime], draw: random.Random, start: datetime) -> Iterator[Step]:
    """Credit grants run out, are granted again, and run out."""
    for number, (kind, amount) in enumerate((("promotional", 30), ("paid", 50), ("promotional", 25), ("paid", 12))):
        span = Span(Decimal(amount), start)
        yield Grant("stark", f"grant-{number}", posted.CREDIT_GRANT, (span,), CURRENCY, type=kind, priority=number)
        if number:
            yield from _usage("stark", clock, draw, 30, 6)
    yield Adjustment("stark", "grant-3", Decimal(16))
    yield Event("stark-last", "stark", MINUTES, "1", clock(), cost="500", currency=CURRENCY)


def _cyberdyne(clock: Callable[[], datetime], draw: random.Random, start: datetime) -> Iterator[Step]:
    """The credits of a seat are for its use alone; beyond them the commit is drawn on."""
    seats = ("miles", "sarah", "john")
    for seat in seats:
        span = Span(Decimal(30), start)
        yield Grant("cyberdyne", f"seat-{seat}", posted.SEAT_CREDIT, (span,), CURRENCY, seat=("user", seat))
    yield Grant("cyberdyne", "pool", posted.COMMIT, (Span(Decimal(40), start),), CURRENCY)
    yield from _usage("cyberdyne", clock, draw, 60, 5, seats)


def _tyrell(clock: Callable[[], datetime], draw: random.Random, start: datetime) -> Iterator[Step]:
    """A licence allows so many minutes; a top-up lowers the share that is used."""
    span = Span(Decimal(200), start)
    yield Grant("tyrell", "nexus", posted.LICENSE_ALLOTMENT, (span,), metric=MINUTES, type="editor")
    for round_ in range(2):
        for number in range(40):
            quantity = str(draw.randint(2, 11))
            yield Event(f"tyrell-{round_}-{number:03}", "tyrell", MINUTES, quantity, clock())
        yield Adjustment("tyrell", "nexus", Decimal(150))


def _oscorp(now: datetime) -> Iterator[Step]:
    """Invoices grow from drafts, are corrected, and voided; one belongs to the month before."""
    before = month_of(now) - timedelta(days=2)
    for invoice_id, kind, status, total, period_end in (
        ("inv-1", "USAGE", posted.DRAFT, "60.10", now),
        ("inv-1", "USAGE", posted.DRAFT, "90", now),
        ("inv-2", "SCHEDULED", posted.ISSUED, "10", now),
        ("inv-1", "USAGE", posted.ISSUED, "150.00", now),
        ("inv-0", "USAGE", posted.ISSUED, "310.25", before),
        ("inv-3", "SCHEDULED", posted.ISSUED, "95.5", now),
        ("inv-1", "USAGE", posted.ISSUED, "89.99", now),
        ("inv-3", "SCHEDULED", posted.VOID, "95.5", now),
        ("inv-0", "USAGE", posted.VOID, "310.25", before),
    ):
        yield Posting("oscorp", invoice_id, kind, status, CURRENCY, Decimal(total), period_end)


def _usage(
    customer: str,
    clock: Callable[[], datetime],
    draw: random.Random,
    count: int,
    most: int,
    seats: Sequence[str] = (),
) -> Iterator[Event]:
    """Events that cost up to so much each; some take a part of it back."""
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
