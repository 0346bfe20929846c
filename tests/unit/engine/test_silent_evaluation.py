"""Silent evaluation of an alert with `evaluate_on_create: false`, at the bounds of periods and epochs."""

from datetime import UTC, datetime, timedelta

import pytest

from engine.evaluation.silence import Silence
from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection
from evaluator.gauges import Measure
from evaluator.periods import Period
from evaluator.thresholds import Direction, ThresholdSet
from evaluator.watched_gauges import COUNTING_MARGIN

CREATED = datetime(2026, 3, 15, 12, tzinfo=UTC)
TICK, DAY = timedelta.resolution, timedelta(days=1)
EPOCH = 7  # of the creation


def alert(condition: ConditionType, *, evaluate: bool = False, watching_epoch: int = EPOCH) -> AlertRule:
    scope, measure = Scope(ScopeKind.ALL_CUSTOMERS), Measure(metric_id="calls")
    if condition is ConditionType.CREDIT_BALANCE_DEPLETED:
        selection = BalanceSelection((BalanceKind.CREDIT_GRANT,), BalanceReading.REMAINING)
        measure = Measure(currency="USD", balances=selection)
    return AlertRule(
        *("alt", "a", 1, condition, scope, measure, (), ThresholdSet.of((), Direction.RISING), evaluate),
        *(EPOCH, watching_epoch, CREATED),
        create_epoch=EPOCH,
        create_time=CREATED,
    )


USAGE = alert(ConditionType.USAGE_THRESHOLD_REACHED)


@pytest.mark.parametrize(
    ("start", "end", "before_its_end", "after_its_end"),
    [
        (-2 * DAY, -DAY, True, True),
        (-DAY, timedelta(), True, True),  # the period was closed at the creation
        (-DAY, TICK, True, False),
        (timedelta(), DAY, True, False),
        (COUNTING_MARGIN, DAY, True, False),
        (COUNTING_MARGIN + TICK, DAY, False, False),
    ],
)
def test_a_period_from_before_the_alert_is_evaluated_silently(
    start: timedelta, end: timedelta, before_its_end: bool, after_its_end: bool
) -> None:
    """The last two parameters: whether it is silent before, and after, the first backfill is complete."""
    period = Period(CREATED + start, CREATED + end)
    assert Silence({"alt"}).covers(USAGE, EPOCH - 1, period) is before_its_end
    assert Silence({"other"}).covers(USAGE, EPOCH - 1, period) is after_its_end
    # An evaluation at the epoch of the creation, or later, has already evaluated earlier usage.
    assert not Silence({"alt"}).covers(USAGE, EPOCH, period)
    evaluating = alert(ConditionType.USAGE_THRESHOLD_REACHED, evaluate=True)
    assert not Silence({"alt"}).covers(evaluating, EPOCH - 1, period)


def test_a_reading_is_evaluated_silently_by_the_first_backfill_only() -> None:
    for unfinished, new, epoch, kept in (
        ({"alt"}, True, EPOCH - 1, True),
        ({"alt"}, False, EPOCH - 1, False),
        ({"alt"}, True, EPOCH, False),
        (set[str](), True, EPOCH - 1, False),
    ):
        assert Silence(unfinished).covers_reading(USAGE, epoch, backfilled=new) is kept


def test_a_condition_on_an_edge_is_evaluated_silently_before_the_alert_watches() -> None:
    period = Period(CREATED, CREATED + DAY)
    for evaluate in (False, True):
        edge = alert(ConditionType.CREDIT_BALANCE_DEPLETED, evaluate=evaluate, watching_epoch=9)
        for epoch, kept in ((8, True), (9, False)):
            assert Silence(set()).covers(edge, epoch, period) is kept
            assert Silence(set()).covers_reading(edge, epoch, backfilled=False) is kept
