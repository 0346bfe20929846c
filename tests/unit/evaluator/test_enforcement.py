"""Enforced limits: which of them a usage meets, in which windows, and how much of it fits."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from evaluator.aggregation import Aggregation
from evaluator.amounts import exact_arithmetic
from evaluator.balances import Unit
from evaluator.enforced_limits import EnforcedLimit, EnforcedLimits, Enforcement, LimitGroups, Since, met_by
from evaluator.enforcement.decision_json import decision_from, decision_json
from evaluator.enforcement.decisions import (
    Credit,
    CreditState,
    Decision,
    LimitCharge,
    LimitState,
    Outcome,
    Reason,
    fit,
)
from evaluator.enforcement.meters import Meter, MeterCell, MeterState
from evaluator.enforcement.targets import Holder, Kept, UsageTargets
from evaluator.limit_windows import BILLING_PERIOD, LimitWindow, WindowKind
from evaluator.periods import DEFAULT_CYCLE, BillingCycle, Cadence, Period

CALLS, MONEY = Unit(metric_id="calls"), Unit(currency="USD")
NOON = datetime(2026, 3, 15, 12, 34, 56, tzinfo=UTC)
ROLLING = LimitWindow(WindowKind.ROLLING, 10)


def limit(
    limit_id: str,
    *groups: tuple[str, str | None],
    amount: str = "10",
    enforcement: Enforcement = Enforcement.HARD,
    window: LimitWindow = BILLING_PERIOD,
    unit: Unit = CALLS,
) -> EnforcedLimit:
    kept: LimitGroups = tuple(sorted(groups))
    return EnforcedLimit(limit_id, unit, kept, window, Decimal(amount), enforcement, 1)


def met(
    own: EnforcedLimits, plan: EnforcedLimits, **properties: str
) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return [(one.limit.limit_id, one.group) for one in met_by(own, plan, CALLS, properties)]


def test_own_limits_replace_those_of_the_plan_kind_by_kind() -> None:
    plan = EnforcedLimits([limit("plan"), limit("plan-hour", window=LimitWindow(WindowKind.HOUR))])
    assert met(EnforcedLimits(), plan) == [("plan", ()), ("plan-hour", ())]
    assert met(EnforcedLimits([limit("own")]), plan) == [("own", ()), ("plan-hour", ())]
    without = EnforcedLimits([limit("own", enforcement=Enforcement.NONE)])
    assert met(without, plan) == [("plan-hour", ())]
    assert not without.enforces


def test_of_limits_of_one_kind_the_one_that_fits_best_applies() -> None:
    own = EnforcedLimits(
        [
            limit("any", ("model", None)),
            limit("large", ("model", "large")),
            limit("two", ("model", None), ("eu", "1")),
        ]
    )
    assert met(own, EnforcedLimits(), model="large") == [("large", (("model", "large"),))]
    assert met(own, EnforcedLimits(), model="small") == [("any", (("model", "small"),))]
    assert met(own, EnforcedLimits(), eu="1") == []
    both = met(own, EnforcedLimits(), eu="1", model="small")
    assert both == [("any", (("model", "small"),)), ("two", (("eu", "1"), ("model", "small")))]


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [
        (WindowKind.HOUR, "2026-03-15T12:00:00+00:00", "2026-03-15T13:00:00+00:00"),
        (WindowKind.DAY, "2026-03-14T23:00:00+00:00", "2026-03-15T23:00:00+00:00"),
        (WindowKind.WEEK, "2026-03-08T23:00:00+00:00", "2026-03-15T23:00:00+00:00"),
        (WindowKind.MONTH, "2026-02-28T23:00:00+00:00", "2026-03-31T22:00:00+00:00"),
    ],
)
def test_windows_of_the_calendar_are_in_the_time_zone_of_the_cycle(kind: WindowKind, start: str, end: str) -> None:
    cycle = BillingCycle(datetime(2026, 1, 7, tzinfo=UTC), Cadence.MONTH, 1, "Europe/Berlin")
    span = LimitWindow(kind).span_at(NOON, cycle)
    assert span == Period(datetime.fromisoformat(start), datetime.fromisoformat(end))


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
def test_hours_of_zones_with_odd_offsets_contain_their_time(zone: str) -> None:
    cycle = BillingCycle(datetime(2026, 1, 1, tzinfo=UTC), Cadence.MONTH, 1, zone)
    for minutes in range(0, 60 * 24 * 365, 997):
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
        assert LimitWindow(WindowKind.HOUR).span_at(time, cycle).contains(time)


def test_a_rolling_window_ends_with_the_minute() -> None:
    span = ROLLING.span_at(NOON, DEFAULT_CYCLE)
    assert (span.start.minute, span.end) == (24, NOON.replace(minute=35, second=0))
    for bad in ((WindowKind.ROLLING, None), (WindowKind.DAY, 5)):
        with pytest.raises(ValueError, match="length"):
            LimitWindow(*bad)


def charge(name: str, amount: str, *, unit: Unit = CALLS, level: int = 0, most: str = "10") -> LimitCharge:
    meter = Meter(name, None, unit, (), BILLING_PERIOD, DEFAULT_CYCLE.period_at(NOON))
    return LimitCharge(limit(name, unit=unit, amount=most), meter, Decimal(amount), level)


def test_the_tightest_limit_decides_how_much_fits() -> None:
    with exact_arithmetic():
        charges = [
            (charge("half", "10"), MeterState(Decimal(5))),
            (charge("third", "3", unit=MONEY), MeterState(Decimal(5), Decimal(4))),
            (charge("enough", "1"), MeterState()),
        ]
        found = fit(charges, [Credit(MONEY, Decimal(3), Decimal(2)), Credit(CALLS, Decimal(5), None)])
        assert found.share == Fraction(1, 3)
        assert found.tightest is charges[1][0]
        assert [one.limit.limit_id for one in found.over] == ["half", "third"]
        assert found.part_of(Decimal(10)) == Decimal("3.333333333333333333")
        assert str(found.part_of(Decimal(3))) == "1"
        assert fit(charges[2:], []).part_of(Decimal("1.50")) == Decimal("1.50")


def test_of_equal_shares_the_nearest_limit_is_named() -> None:
    with exact_arithmetic():
        far, near = charge("a", "20", level=1), charge("b", "20")
        assert fit([(near, MeterState()), (far, MeterState())], []).tightest is near
        gone = fit([(near, MeterState(Decimal(20))), (far, MeterState(Decimal(11)))], [])
        assert (gone.tightest, gone.share) == (near, Fraction(0))
        assert fit([(near, MeterState(Decimal(9)))], [Credit(CALLS, Decimal(20), Decimal(0))]).share == 0


def test_targets_are_found_by_the_values_that_matter_and_follow_time() -> None:
    of_model = limit("of-model", ("model", None))
    own = EnforcedLimits([limit("all"), of_model, limit("rolling", window=ROLLING)], {of_model.kind: Since(9, NOON)})
    hourly = EnforcedLimits([limit("money", unit=MONEY, window=LimitWindow(WindowKind.HOUR))])
    holders = [Holder("acme", None, own, EnforcedLimits(), DEFAULT_CYCLE, 0, Since(7, NOON))]
    holders.append(Holder("parent", None, hourly, EnforcedLimits(), DEFAULT_CYCLE, 1))
    targets = UsageTargets(Aggregation.SUM, (CALLS, MONEY), holders, Kept())
    found = targets.of({"model": "x", "other": "1"})
    assert found is targets.of({"model": "x", "other": "2"})
    assert [(one.limit.limit_id, one.of_cost) for one in found] == [
        ("all", False),
        ("of-model", False),
        ("rolling", False),
        ("money", True),
    ]
    assert len(targets.of({})) == 3
    money = found[3]
    assert money.meter_at(NOON) is money.meter_at(NOON + timedelta(minutes=20))
    assert money.meter_at(NOON).key != money.meter_at(NOON + timedelta(hours=1)).key
    assert found[2].meter_at(NOON).key == found[2].meter_at(NOON + timedelta(days=1)).key
    assert [one.since.epoch for one in found] == [7, 9, 7, 0]
    assert len({one.meter_at(NOON).key for one in found}) == 4


def test_cells_of_rolling_windows_count_by_minute() -> None:
    with exact_arithmetic():
        cell = MeterCell(counted_from=NOON.replace(minute=30, second=0))
        cell.count(Decimal(2), NOON)
        cell.count(Decimal(3), NOON + timedelta(seconds=3))
        cell.count(Decimal(5), NOON - timedelta(minutes=10))  # it has left the window
        assert (cell.counted, cell.minutes) == (Decimal(5), {NOON.replace(second=0): Decimal(5)})


@pytest.mark.parametrize("window", [BILLING_PERIOD, ROLLING])
def test_a_decision_is_the_same_after_it_was_stored(window: LimitWindow) -> None:
    span = window.span_at(NOON, DEFAULT_CYCLE)
    of = limit("l", ("model", None), amount="10.5", window=window)
    meter = Meter("acme", "sub", CALLS, (("model", "x"),), window, None if window.is_rolling else span)
    state = LimitState(of, meter, Decimal(9), Decimal("2.25"), Decimal("-0.75"), span, NOON)
    decisions = [
        Decision(Outcome.ALLOWED, Decimal(3), None, over=(state, state)),
        Decision(
            Outcome.DENIED, Decimal(0), Decimal(0), Reason.LIMIT, state, retry_after=timedelta(days=1, microseconds=3)
        ),
        Decision(Outcome.CAPPED, Decimal(2), Decimal(1), Reason.BALANCE, credit=CreditState(MONEY, Decimal(-1))),
        Decision(Outcome.DENIED, Decimal(0), None, Reason.BALANCE, credit=CreditState(CALLS, None)),
    ]
    for decision in decisions:
        assert decision_from(decision_json(decision)) == decision
