"""The demo's own model: small cases that can be checked by hand, and the evaluator as a second opinion."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import world
from demo.expectation import ACCEPTED, CONFLICT, DUPLICATE, Expectation, Periods
from demo.world import BOTH, REACHED, RESOLVED, AlertPlan, Customer, Cycle, Event, Line, Metric, Subscription
from evaluator.periods import BillingCycle, Cadence
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import AlertState, Step, evaluate

NOW = datetime(2026, 3, 20, tzinfo=UTC)
TIME = datetime(2026, 3, 10, tzinfo=UTC)

SPEND = AlertPlan("spend", world.SPEND_THRESHOLD_REACHED, "USD", (Line(Decimal(10)), Line(Decimal(20), tell=BOTH)))


def event(number: int, cost: str = "", **changes: object) -> Event:
    made = Event(f"e{number}", "acme", "tokens", "1", TIME, cost=cost, properties={"region": "eu"})
    return replace(made, **changes)  # type: ignore[arg-type]


def told(expectation: Expectation) -> list[tuple[str, str, str]]:
    return [(crossing.kind, crossing.level, crossing.event_id) for crossing in expectation.told]


def expectation(
    *plans: AlertPlan, customers: tuple[Customer, ...] = (), metrics: tuple[Metric, ...] = ()
) -> Expectation:
    made = Expectation(customers, metrics)
    for plan in plans:
        made.watch(plan, NOW)
    return made


def test_a_line_is_reached_at_it_and_a_jump_reaches_all() -> None:
    model = expectation(SPEND)
    for number, cost in enumerate(["9.99", "0.01", "30", "-30", "15"]):
        assert model.feed(event(number, cost)) == ACCEPTED
    # The first line resolves too, but nobody asked to be told.
    assert told(model) == [
        (REACHED, "10", "e1"),
        (REACHED, "20", "e2"),
        (RESOLVED, "20", "e3"),
        (REACHED, "20", "e4"),
    ]
    assert len(model.crossings) == 4


def test_a_line_that_resolves_lower_waits_for_it() -> None:
    plan = replace(SPEND, lines=(Line(Decimal(10), resolve=Decimal(4), tell=BOTH),))
    model = expectation(plan)
    for number, cost in enumerate(["10", "-5", "6", "-7"]):
        model.feed(event(number, cost))
    assert told(model) == [(REACHED, "10", "e0"), (RESOLVED, "10", "e3")]


def test_a_recurring_line_starts_at_the_last_fixed_one() -> None:
    model = expectation(replace(SPEND, lines=(Line(Decimal(10)), Line(step=Decimal(5), tell=BOTH))))
    for number, cost in enumerate(["14.99", "5.01", "-6"]):
        model.feed(event(number, cost))
    assert told(model) == [
        (REACHED, "10", "e0"),
        (REACHED, "15", "e1"),
        (REACHED, "20", "e1"),
        (RESOLVED, "20", "e2"),
        (RESOLVED, "15", "e2"),
    ]


def test_duplicates_and_conflicts_move_nothing() -> None:
    model = expectation(SPEND)
    assert model.feed(event(1, "9")) == ACCEPTED
    assert model.feed(event(1, "9")) == DUPLICATE
    assert model.feed(event(1, "10")) == CONFLICT
    assert model.feed(event(1, "9", customer="globex")) == ACCEPTED
    assert told(model) == []


@pytest.mark.parametrize(
    ("metric", "quantities", "value"),
    [
        (Metric("tokens"), ["1", "2.5", "-0.5"], "3"),
        (Metric("tokens", world.COUNT), ["7", "7", "-7"], "1"),
        (Metric("tokens", world.MAX), ["-3", "-5", "-1"], "-1"),
        (Metric("tokens", world.LATEST), ["3", "9", "4"], "4"),
        (Metric("tokens", world.UNIQUE_COUNT, "region"), ["1", "1", "1"], "1"),
    ],
)
def test_aggregations(metric: Metric, quantities: list[str], value: str) -> None:
    plan = AlertPlan("usage", world.USAGE_THRESHOLD_REACHED, "tokens", (Line(Decimal(10**9)),))
    model = expectation(plan, metrics=(metric,))
    for number, quantity in enumerate(quantities):
        model.feed(event(number, quantity=quantity, time=TIME + timedelta(hours=number)))
    assert list(model.values().values()) == [Decimal(value)]


def test_scopes_groups_and_subscriptions() -> None:
    acme = Customer("acme", plan="pro", currency="EUR", subscriptions=(Subscription("main", "platform"),))
    line = (Line(Decimal(1)),)
    plans = (
        AlertPlan("pro", world.SPEND_THRESHOLD_REACHED, "EUR", line, plan="pro"),
        AlertPlan("starter", world.SPEND_THRESHOLD_REACHED, "EUR", line, plan="starter"),
        AlertPlan("eu", world.SPEND_THRESHOLD_REACHED, "EUR", line, groups=(("region", "eu"),)),
        AlertPlan("us", world.SPEND_THRESHOLD_REACHED, "EUR", line, groups=(("region", "us"),)),
        AlertPlan("each", world.SPEND_THRESHOLD_REACHED, "EUR", line, groups=(("region", None),)),
        AlertPlan("platform", world.COST_EXCEEDED, "EUR", line, plan="platform"),
        AlertPlan("labs", world.SPEND_EXCEEDED, "EUR", line, customer="acme", subscription="labs"),
        AlertPlan("dollars", world.SPEND_THRESHOLD_REACHED, "USD", line),
    )
    model = expectation(*plans, customers=(acme,))
    # No currency: the customer's.
    model.feed(event(1, "5", subscription="main"))
    assert {crossing.alert for crossing in model.told} == {"pro", "eu", "each", "platform"}
    model.feed(event(2, "5"))
    assert len(model.told) == 4


def test_a_period_begins_at_zero() -> None:
    cycle = Cycle(datetime(2026, 3, 9, 12, tzinfo=UTC), "week")
    model = expectation(SPEND, customers=(Customer("acme", cycle=cycle),))
    model.feed(event(1, "10", time=datetime(2026, 3, 9, 11, 59, 59, tzinfo=UTC)))
    model.feed(event(2, "10", time=datetime(2026, 3, 9, 12, tzinfo=UTC)))
    assert [(crossing.period_start.day, crossing.event_id) for crossing in model.told] == [(2, "e1"), (9, "e2")]


def test_a_new_alert_looks_at_the_current_period_at_once_and_at_older_ones_when_something_comes() -> None:
    model = expectation()
    model.feed(event(1, "15"))
    model.feed(event(2, "15", time=TIME - timedelta(days=20)))
    model.watch(SPEND, NOW)
    assert told(model) == [(REACHED, "10", "")]
    model.feed(event(3, "1", time=TIME - timedelta(days=20)))
    assert told(model) == [(REACHED, "10", ""), (REACHED, "10", "")]
    assert model.told[1].period_start == datetime(2026, 2, 1, tzinfo=UTC)


def test_an_alert_that_ignores_the_past_fires_after_coming_back() -> None:
    model = expectation()
    model.feed(event(1, "25"))
    model.watch(replace(SPEND, evaluate_on_create=False), NOW)
    for number, cost in enumerate(["-10", "10"], start=2):
        model.feed(event(number, cost))
    assert told(model) == [(REACHED, "20", "e3")]


amounts = st.decimals(-20, 40, places=1).map(lambda value: f"{value:f}")


@given(
    costs=st.lists(amounts, max_size=30),
    fixed=st.lists(st.integers(-5, 60), max_size=4, unique=True),
    step=st.none() | st.integers(3, 15),  # the evaluator reports the last 20 steps of a jump at most
)
def test_the_model_and_the_evaluator_agree(costs: list[str], fixed: list[int], step: int | None) -> None:
    lines = [Line(Decimal(value), resolve=Decimal(value - 3) if value % 2 else None, tell=BOTH) for value in fixed]
    thresholds = [
        Threshold(line.value, resolve_value=line.resolve, notify_on=frozenset(TransitionKind))
        for line in lines
        if line.value is not None
    ]
    if step is not None:
        lines.append(Line(step=Decimal(step), tell=BOTH))
        thresholds.append(Threshold(recurring_step=Decimal(step), notify_on=frozenset(TransitionKind)))
    model = expectation(replace(SPEND, lines=tuple(lines)))
    threshold_set, state, value = ThresholdSet.of(tuple(thresholds), Direction.RISING), AlertState(), Decimal(0)
    found = []
    for number, cost in enumerate(costs):
        model.feed(event(number, cost))
        evaluation = evaluate(threshold_set, state, value, [Step(value + Decimal(cost), None)], NOW)
        state, value = evaluation.state, value + Decimal(cost)
        found += [(one.kind.value, one.level, number) for one in evaluation.transitions]
    expected = [(one.kind, Decimal(one.level), int(one.event_id[1:])) for one in model.crossings]
    assert sorted(found) == sorted(expected)


@given(
    anchor=st.integers(0, 2_500),
    cadence=st.sampled_from(["day", "week", "month"]),
    interval=st.integers(1, 5),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    hours=st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=5),
)
def test_the_periods_are_those_of_the_evaluator(
    anchor: int, cadence: str, interval: int, zone: str, hours: list[int]
) -> None:
    start = datetime(2020, 1, 1, 2, 30, tzinfo=UTC) + timedelta(days=anchor)
    ours = Periods(Cycle(start, cadence, interval, zone))
    theirs = BillingCycle(start, Cadence(cadence), interval, zone)
    for offset in hours:
        time = start + timedelta(hours=offset)
        assert ours.start_of(time) == theirs.period_at(time).start
