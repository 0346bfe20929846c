"""The demo's plain ledger, against sums that were done by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from demo import posted, world
from demo.books import Books, month_of
from demo.fact_expectation import FactExpectation
from demo.posted import Adjustment, Grant, PlanEnd, Posting, Span, Voiding, Wait
from demo.world import BOTH, AlertPlan, Crossing, Event, Line

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
START = NOW - timedelta(days=1)


def grant(
    balance_id: str,
    amount: int,
    kind: str = posted.COMMIT,
    *,
    priority: int = 0,
    end: datetime | None = None,
    seat: tuple[str, str] | None = None,
) -> Grant:
    spans = (Span(Decimal(amount), START, end),)
    return Grant("acme", balance_id, kind, spans, currency="X", priority=priority, seat=seat)


def use(event_id: str, cost: str, **properties: str) -> Event:
    return Event(event_id, "acme", "calls", "1", NOW, cost=cost, currency="X", properties=properties)


def left(books: Books) -> dict[str, Decimal]:
    return {
        name: sum((part.remaining for part in one.parts), Decimal(0)) for (_, name), one in books.balances.items()
    }


def plan(condition: str, *lines: str, measured: str = "X") -> AlertPlan:
    drawn = tuple(Line(Decimal(line), tell=BOTH) for line in lines)
    return AlertPlan("it", condition, measured, drawn, customer="acme")


def crossed(told: list[Crossing]) -> list[tuple[str, str, str]]:
    found = [(one.kind, one.level, one.event_id) for one in told]
    told.clear()
    return found


def test_a_seat_gives_first_then_priority_then_what_ends_first_and_corrections_go_back() -> None:
    books = Books()
    for step in (
        grant("late", 10, priority=1),
        grant("early", 10, priority=1, end=NOW + timedelta(days=1)),
        grant("over", 10, end=NOW),
        grant("last", 10, priority=2),
        grant("seat", 10, posted.SEAT_CREDIT, seat=("user", "ann"), priority=9),
    ):
        books.book(step)
    books.book(use("e1", "12", user="bob"))
    assert left(books) == {"late": 8, "early": 0, "over": 10, "last": 10, "seat": 10}
    books.book(use("e2", "20", user="ann"))
    assert left(books) == {"late": 0, "early": 0, "over": 10, "last": 8, "seat": 0}
    books.book(use("e3", "20"))
    assert books.overage == {("acme", "X"): 12}
    books.book(use("e4", "-25"))
    assert left(books) == {"late": 3, "early": 0, "over": 10, "last": 10, "seat": 0}
    assert books.overage == {("acme", "X"): 0}


def test_a_line_is_reached_at_it_and_resolved_past_it() -> None:
    told: list[Crossing] = []
    expected = FactExpectation(Books(), [], told)
    expected.watch(plan(world.LOW_REMAINING_COMMIT_BALANCE_REACHED, "10"), NOW)
    assert crossed(told) == [("REACHED", "10", "")]  # nobody ever granted anything
    expected.step(grant("c", 30), NOW)
    assert crossed(told) == [("RESOLVED", "10", "")]
    expected.step(use("e1", "19.99"), NOW)
    assert crossed(told) == []
    expected.step(use("e2", "0.01"), NOW)
    assert crossed(told) == [("REACHED", "10", "e2")]
    expected.step(Adjustment("acme", "c", Decimal("0.5")), NOW)
    assert crossed(told) == [("RESOLVED", "10", "")]
    expected.step(Voiding("acme", "c"), NOW)
    assert crossed(told) == [("REACHED", "10", "")]


def test_what_adjustments_took_counts_as_used() -> None:
    books = Books()
    books.book(grant("c", 300))
    books.book(use("e1", "100"))
    books.book(Adjustment("acme", "c", Decimal(-100)))
    asked = plan(world.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED, "50")
    assert books.readings(asked, NOW) == {((), world.EVER): Fraction(100, 3)}
    books.book(Adjustment("acme", "c", Decimal(100)))
    assert books.readings(asked, NOW) == {((), world.EVER): 50}


def test_depletion_is_told_when_it_happens_and_not_when_it_is_found() -> None:
    told: list[Crossing] = []
    expected = FactExpectation(Books(), [], told)
    expected.watch(AlertPlan("it", world.CREDIT_BALANCE_DEPLETED, "X", (Line(Decimal(0)),), customer="acme"), NOW)
    expected.step(grant("g", 5, posted.CREDIT_GRANT), NOW)
    assert crossed(told) == []
    expected.step(use("e1", "7"), NOW)
    assert crossed(told) == [("REACHED", "0", "e1")]


def test_time_brings_days_to_their_lines_in_order() -> None:
    told: list[Crossing] = []
    expected = FactExpectation(Books(), [], told)
    expected.watch(plan(world.LOW_REMAINING_DAYS_IN_PLAN_REACHED, "2", "0.5", measured=world.DAYS), NOW)
    expected.step(PlanEnd("acme", "pro", NOW + timedelta(days=3)), NOW)
    expected.step(Wait(NOW + timedelta(days=1, microseconds=-1)), NOW + timedelta(days=1, microseconds=-1))
    assert crossed(told) == []
    expected.step(Wait(NOW + timedelta(days=9)), NOW + timedelta(days=9))
    assert crossed(told) == [("REACHED", "2", ""), ("REACHED", "0.5", "")]


def test_invoices_add_up_in_the_month_in_which_their_period_ended() -> None:
    books = Books()
    first = datetime(2026, 3, 1, tzinfo=UTC)
    for invoice_id, status, total, end in (
        ("i1", posted.ISSUED, "10", first),  # of February
        ("i2", posted.ISSUED, "20.5", NOW),
        ("i3", posted.VOID, "40", NOW),
    ):
        books.book(Posting("acme", invoice_id, "USAGE", status, "X", Decimal(total), end))
    monthly = plan(world.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED, "1")
    february = datetime(2026, 2, 1, tzinfo=UTC)
    assert books.readings(monthly, NOW) == {((), february): 10, ((), first): Fraction(41, 2)}
    assert month_of(first) == february
