"""The expectation of the demo for usage: small cases that can be checked by hand, and the evaluator beside it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import definitions
from demo.definitions import AlertDefinition, Customer, Event, Subscription
from demo.expectation import ACCEPTED, CONFLICT, DUPLICATE, Expectation
from evaluator import thresholds as evaluated
from evaluator.transitions import AlertState, Step, evaluate
from tests.reference.gauges import COUNT, LATEST, MAX, UNIQUE_COUNT, Metric
from tests.reference.periods import Cycle
from tests.reference.thresholds import BOTH, REACHED, RESOLVED, Threshold

NOW = datetime(2026, 3, 20, tzinfo=UTC)
TIME = datetime(2026, 3, 10, tzinfo=UTC)

SPEND = AlertDefinition(
    "spend",
    definitions.SPEND_THRESHOLD_REACHED,
    "USD",
    (Threshold(Fraction(10)), Threshold(Fraction(20), notify_on=BOTH)),
)


def event(number: int, cost: str = "", **changes: object) -> Event:
    made = Event(f"e{number}", "acme", "tokens", "1", TIME, cost=cost, properties={"region": "eu"})
    return replace(made, **changes)  # type: ignore[arg-type]


def notified(expectation: Expectation) -> list[tuple[str, str, str]]:
    return [(transition.kind, transition.level, transition.event_id) for transition in expectation.notified]


def expectation(
    *alerts: AlertDefinition, customers: tuple[Customer, ...] = (), metrics: tuple[Metric, ...] = ()
) -> Expectation:
    made = Expectation(customers, metrics, NOW)
    for alert in alerts:
        made.create(alert, NOW)
    return made


def test_a_threshold_is_reached_at_its_value_and_a_jump_reaches_all() -> None:
    model = expectation(SPEND)
    for number, cost in enumerate(["9.99", "0.01", "30", "-30", "15"]):
        assert model.send(event(number, cost)) == ACCEPTED
    # The first threshold resolves too, but does not notify of that.
    assert notified(model) == [
        (REACHED, "10", "e1"),
        (REACHED, "20", "e2"),
        (RESOLVED, "20", "e3"),
        (REACHED, "20", "e4"),
    ]
    assert len(model.transitions) == 4


def test_a_threshold_with_a_lower_resolve_value_resolves_only_there() -> None:
    plan = replace(SPEND, thresholds=(Threshold(Fraction(10), resolve=Fraction(4), notify_on=BOTH),))
    model = expectation(plan)
    for number, cost in enumerate(["10", "-5", "6", "-7"]):
        model.send(event(number, cost))
    assert notified(model) == [(REACHED, "10", "e0"), (RESOLVED, "10", "e3")]


def test_a_recurring_threshold_starts_at_the_last_fixed_one() -> None:
    model = expectation(
        replace(SPEND, thresholds=(Threshold(Fraction(10)), Threshold(step=Fraction(5), notify_on=BOTH)))
    )
    for number, cost in enumerate(["14.99", "5.01", "-6"]):
        model.send(event(number, cost))
    assert notified(model) == [
        (REACHED, "10", "e0"),
        (REACHED, "15", "e1"),
        (REACHED, "20", "e1"),
        (RESOLVED, "20", "e2"),
        (RESOLVED, "15", "e2"),
    ]


def test_duplicates_and_conflicts_move_nothing() -> None:
    model = expectation(SPEND)
    assert model.send(event(1, "9")) == ACCEPTED
    assert model.send(event(1, "9")) == DUPLICATE
    assert model.send(event(1, "10")) == CONFLICT
    assert model.send(event(1, "9", customer="globex")) == ACCEPTED
    assert notified(model) == []


@pytest.mark.parametrize(
    ("metric", "quantities", "value"),
    [
        (Metric("tokens"), ["1", "2.5", "-0.5"], "3"),
        (Metric("tokens", COUNT), ["7", "7", "-7"], "1"),
        (Metric("tokens", MAX), ["-3", "-5", "-1"], "-1"),
        (Metric("tokens", LATEST), ["3", "9", "4"], "4"),
        (Metric("tokens", UNIQUE_COUNT, "region"), ["1", "1", "1"], "1"),
    ],
)
def test_expectation_aggregates_quantities_as_the_metric_says(
    metric: Metric, quantities: list[str], value: str
) -> None:
    plan = AlertDefinition("usage", definitions.USAGE_THRESHOLD_REACHED, "tokens", (Threshold(Fraction(10**9)),))
    model = expectation(plan, metrics=(metric,))
    for number, quantity in enumerate(quantities):
        model.send(event(number, quantity=quantity, time=TIME + timedelta(hours=number)))
    assert list(model.values().values()) == [Fraction(value)]


def test_an_alert_counts_only_its_scope_groups_and_subscriptions() -> None:
    acme = Customer("acme", plan="pro", currency="EUR", subscriptions=(Subscription("main", "platform"),))
    at_one = (Threshold(Fraction(1)),)
    plans = (
        AlertDefinition("pro", definitions.SPEND_THRESHOLD_REACHED, "EUR", at_one, plan="pro"),
        AlertDefinition("starter", definitions.SPEND_THRESHOLD_REACHED, "EUR", at_one, plan="starter"),
        AlertDefinition("eu", definitions.SPEND_THRESHOLD_REACHED, "EUR", at_one, groups=(("region", "eu"),)),
        AlertDefinition("us", definitions.SPEND_THRESHOLD_REACHED, "EUR", at_one, groups=(("region", "us"),)),
        AlertDefinition("each", definitions.SPEND_THRESHOLD_REACHED, "EUR", at_one, groups=(("region", None),)),
        AlertDefinition("platform", definitions.COST_EXCEEDED, "EUR", at_one, plan="platform"),
        AlertDefinition("labs", definitions.SPEND_EXCEEDED, "EUR", at_one, customer="acme", subscription="labs"),
        AlertDefinition("dollars", definitions.SPEND_THRESHOLD_REACHED, "USD", at_one),
    )
    model = expectation(*plans, customers=(acme,))
    # No currency: the customer's.
    model.send(event(1, "5", subscription="main"))
    assert {transition.alert for transition in model.notified} == {"pro", "eu", "each", "platform"}
    model.send(event(2, "5"))
    assert len(model.notified) == 4


def test_a_period_begins_at_zero() -> None:
    cycle = Cycle(datetime(2026, 3, 9, 12, tzinfo=UTC), "week")
    model = expectation(SPEND, customers=(Customer("acme", cycle=cycle),))
    model.send(event(1, "10", time=datetime(2026, 3, 9, 11, 59, 59, tzinfo=UTC)))
    model.send(event(2, "10", time=datetime(2026, 3, 9, 12, tzinfo=UTC)))
    assert [(one.period_start.day, one.event_id) for one in model.notified] == [(2, "e1"), (9, "e2")]


def test_a_new_alert_is_evaluated_for_the_current_period_at_once_and_for_older_ones_at_their_next_event() -> None:
    model = expectation()
    model.send(event(1, "15"))
    model.send(event(2, "15", time=TIME - timedelta(days=20)))
    model.create(SPEND, NOW)
    assert notified(model) == [(REACHED, "10", "")]
    model.send(event(3, "1", time=TIME - timedelta(days=20)))
    assert notified(model) == [(REACHED, "10", ""), (REACHED, "10", "")]
    assert model.notified[1].period_start == datetime(2026, 2, 1, tzinfo=UTC)


def test_an_alert_that_ignores_the_past_notifies_when_its_threshold_is_reached_again() -> None:
    model = expectation()
    model.send(event(1, "25"))
    model.create(replace(SPEND, evaluate_on_create=False), NOW)
    for number, cost in enumerate(["-10", "10"], start=2):
        model.send(event(number, cost))
    assert notified(model) == [(REACHED, "20", "e3")]


amounts = st.decimals(-20, 40, places=1).map(lambda value: f"{value:f}")


@given(
    costs=st.lists(amounts, max_size=30),
    fixed=st.lists(st.integers(-5, 60), max_size=4, unique=True),
    step=st.none() | st.integers(3, 15),  # the evaluator reports the last 20 steps of a jump at most
)
def test_the_model_and_the_evaluator_agree(costs: list[str], fixed: list[int], step: int | None) -> None:
    ours = [
        Threshold(Fraction(value), resolve=Fraction(value - 3) if value % 2 else None, notify_on=BOTH)
        for value in fixed
    ]
    both = frozenset(evaluated.TransitionKind)
    theirs = [
        evaluated.Threshold(Decimal(value), resolve_value=Decimal(value - 3) if value % 2 else None, notify_on=both)
        for value in fixed
    ]
    if step is not None:
        ours.append(Threshold(step=Fraction(step), notify_on=BOTH))
        theirs.append(evaluated.Threshold(recurring_step=Decimal(step), notify_on=both))
    model = expectation(replace(SPEND, thresholds=tuple(ours)))
    threshold_set = evaluated.ThresholdSet.of(tuple(theirs), evaluated.Direction.RISING)
    state, value = AlertState(), Decimal(0)
    found = []
    for number, cost in enumerate(costs):
        model.send(event(number, cost))
        evaluation = evaluate(threshold_set, state, value, [Step(value + Decimal(cost), None)], NOW)
        state, value = evaluation.state, value + Decimal(cost)
        found += [(one.kind.value, one.level, number) for one in evaluation.transitions]
    expected = [(one.kind, Decimal(one.level), int(one.event_id[1:])) for one in model.transitions]
    assert found == expected
