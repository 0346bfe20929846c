"""The expectation of the demo for balances, invoices and plans: small cases that can be checked by hand."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

from demo import definitions
from demo.billing_steps import AdjustBalance, PutBalance, PutInvoice, PutPlanEnd, Step, VoidBalance, Wait
from demo.definitions import AlertDefinition, Event, thresholds
from demo.expectation import Expectation
from tests.reference.balances import COMMIT, CREDIT_GRANT, Terms
from tests.reference.facts import VOID, Invoice
from tests.reference.thresholds import BOTH

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
START = NOW - timedelta(days=1)


def grant(balance_id: str, amount: int, kind: str = COMMIT) -> PutBalance:
    return PutBalance("acme", Terms(balance_id, kind, ("cost", "X")), ((Fraction(amount), START, None),))


def use(event_id: str, cost: str) -> Event:
    return Event(event_id, "acme", "calls", "1", NOW, cost=cost, currency="X")


def invoice(invoice_id: str, status: str, total: str, period_end: datetime) -> PutInvoice:
    return PutInvoice("acme", Invoice(invoice_id, "USAGE", status, "X", Fraction(total), period_end))


class Case:
    """One alert of one customer."""

    def __init__(self, condition: str, *values: str, measured: str = "X", both: bool = True) -> None:
        self.expectation = Expectation((), (), NOW)
        own = thresholds(*values, notify_on=BOTH) if both else thresholds(*values)
        self.expectation.create(AlertDefinition("it", condition, measured, own, customer="acme"), NOW)

    def take(self, step: Step, now: datetime = NOW) -> list[tuple[str, str, str]]:
        """What has to be notified of the step."""
        self.notified()
        self.expectation.take(step, now)
        return self.notified()

    def notified(self) -> list[tuple[str, str, str]]:
        """What has to be notified since the last time."""
        found = [(one.kind, one.level, one.event_id) for one in self.expectation.notified]
        self.expectation.notified.clear()
        return found


def test_a_threshold_is_reached_at_its_value_and_resolved_above_it() -> None:
    case = Case(definitions.LOW_REMAINING_COMMIT_BALANCE_REACHED, "10")
    assert case.notified() == [("REACHED", "10", "")]  # nothing was ever granted
    assert case.take(grant("c", 30)) == [("RESOLVED", "10", "")]
    assert case.take(use("e1", "19.99")) == []
    assert case.take(use("e2", "0.01")) == [("REACHED", "10", "e2")]
    assert case.take(AdjustBalance("acme", "c", Fraction("0.5"))) == [("RESOLVED", "10", "")]
    assert case.take(VoidBalance("acme", "c")) == [("REACHED", "10", "")]


def test_what_adjustments_took_counts_as_used() -> None:
    case = Case(definitions.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED, "34", "33.3", "50", "49.9")
    assert case.take(grant("c", 300)) == []
    case.take(use("e1", "100"))
    # A third remains.
    assert case.take(AdjustBalance("acme", "c", Fraction(-100))) == [
        ("REACHED", "50", ""),
        ("REACHED", "49.9", ""),
        ("REACHED", "34", ""),
    ]
    # A half remains.
    assert case.take(AdjustBalance("acme", "c", Fraction(100))) == [("RESOLVED", "34", ""), ("RESOLVED", "49.9", "")]


def test_depletion_is_notified_when_it_happens_and_not_when_it_is_found() -> None:
    case = Case(definitions.CREDIT_BALANCE_DEPLETED, "0", both=False)
    assert case.notified() == []
    assert case.take(grant("g", 5, CREDIT_GRANT)) == []
    assert case.take(use("e1", "7")) == [("REACHED", "0", "e1")]


def test_a_balance_recovers_above_zero_and_not_at_it() -> None:
    case = Case(definitions.CREDIT_BALANCE_RECOVERED, "0", both=False)
    assert case.take(grant("g", 0, CREDIT_GRANT)) == []
    assert case.take(AdjustBalance("acme", "g", Fraction("0.01"))) == [("REACHED", "0", "")]


def test_days_reach_their_thresholds_in_order_as_time_passes() -> None:
    case = Case(definitions.LOW_REMAINING_DAYS_IN_PLAN_REACHED, "2", "0.5", measured=definitions.DAYS)
    case.take(PutPlanEnd("acme", "pro", NOW + timedelta(days=3)))
    early = NOW + timedelta(days=1, microseconds=-1)
    assert case.take(Wait(early), early) == []
    late = NOW + timedelta(days=9)
    assert case.take(Wait(late), late) == [("REACHED", "2", ""), ("REACHED", "0.5", "")]


def test_invoices_add_up_in_the_month_in_which_their_period_ended() -> None:
    case = Case(definitions.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED, "10", "20.5", "30")
    february, march = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    case.expectation.take(invoice("i1", "ISSUED", "10", march), NOW)  # of February
    case.expectation.take(invoice("i2", "ISSUED", "20.5", NOW), NOW)
    case.expectation.take(invoice("i3", VOID, "40", NOW), NOW)
    assert [(one.period_start, one.level) for one in case.expectation.notified] == [
        (february, "10"),
        (march, "10"),
        (march, "20.5"),
    ]
