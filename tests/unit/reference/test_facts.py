"""Readings of the reference model, compared with numbers that were computed by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from tests.reference.balances import COMMIT, Terms
from tests.reference.facts import MONTH_TOTAL, PERCENT_REMAINING, REMAINING, VOID, FactAlert, FactModel, Invoice
from tests.reference.gauges import Event

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
UNIT = ("cost", "X")


def test_what_adjustments_took_counts_as_used() -> None:
    model = FactModel(NOW)
    model.put("acme", Terms("c", COMMIT, UNIT), [(Fraction(300), NOW - timedelta(days=1), None)])
    model.commit([Event("e1", "acme", NOW, "calls", Fraction(1), None, Fraction(100), "X")])
    model.adjust("acme", "c", Fraction(-100), 1)
    alert = FactAlert("it", PERCENT_REMAINING, (), kinds=frozenset({COMMIT}), unit=UNIT)
    assert model.readings(alert, "acme", NOW) == {((), None): Fraction(100, 3)}
    model.adjust("acme", "c", Fraction(100), 1)
    assert model.readings(alert, "acme", NOW) == {((), None): 50}


def test_custom_fields_select_balances_and_invoices() -> None:
    model = FactModel(NOW)
    since = NOW - timedelta(days=1)
    for balance_id, team, region, amount in (("c1", "a", "eu", 1), ("c2", "b", "eu", 2), ("c3", "a", "us", 4)):
        terms = Terms(balance_id, COMMIT, UNIT, fields={"team": team}, contract={"region": region, "tier": "1"})
        model.put("acme", terms, [(Fraction(amount), since, None)])
        invoice = Invoice(balance_id, "", "ISSUED", "X", Fraction(amount), NOW, contract={"region": region})
        model.post_invoice("acme", invoice)
    of_team, of_region = frozenset({("team", "a")}), frozenset({("region", "eu")})
    low = FactAlert("it", REMAINING, (), kinds=frozenset({COMMIT}), unit=UNIT, fields=of_team)
    month = FactAlert("month", MONTH_TOTAL, (), unit=UNIT, contract=of_region)
    assert model.readings(low, "acme", NOW) == {((), None): 5}
    assert model.readings(replace(low, contract=of_region), "acme", NOW) == {((), None): 1}
    assert list(model.readings(month, "acme", NOW).values()) == [3]


def test_invoices_add_up_in_the_month_in_which_their_period_ended() -> None:
    february, march = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    model = FactModel(NOW)
    model.register("acme")
    for invoice_id, status, total, end in (
        ("i1", "ISSUED", "10", march),  # of February
        ("i2", "ISSUED", "20.5", NOW),
        ("i3", VOID, "40", NOW),
    ):
        model.post_invoice("acme", Invoice(invoice_id, "USAGE", status, "X", Fraction(total), end))
    alert = FactAlert("it", MONTH_TOTAL, (), unit=UNIT)
    assert model.readings(alert, "acme", NOW) == {((), february): 10, ((), march): Fraction(41, 2)}
