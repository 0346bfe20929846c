"""The limit of a gauge, and thresholds at percentages of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import Unit
from evaluator.definition_json import thresholds_from_json, thresholds_json
from evaluator.enforced_limits import NOTHING_ENFORCED, Enforcement, LimitGroups, met_by
from evaluator.gauges import Group
from evaluator.limit_windows import LimitWindow, WindowKind
from evaluator.limits import NO_LIMITS, LimitChange, Limits, limit_of
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import AlertState, Evaluation, Step, Transition, evaluate, silent_state, trip_levels

NOW = datetime(2026, 3, 15, tzinfo=UTC)
USD, TOKENS = Unit(currency="USD"), Unit(metric_id="tokens")
BOTH = frozenset(TransitionKind)


def limit(
    amount: str | None, groups: LimitGroups = (), unit: Unit = TOKENS, epoch: int = 1, **fields: Any
) -> LimitChange:
    return LimitChange(unit, groups, None if amount is None else Decimal(amount), epoch, **fields)


LIMITS = Limits(
    [
        limit("1"),
        limit("2", unit=USD),
        limit("3", (("seat", None),)),
        limit("4", (("seat", "ann"),)),
        limit("5", (("region", None), ("seat", None))),
        limit("6", (("region", None), ("seat", "ann"))),
        limit("7", (("region", "eu"), ("seat", None))),
        limit("8", (("region", "eu"), ("seat", "bob"))),
        limit(None, (("team", None),)),
    ]
)


@pytest.mark.parametrize(
    ("group", "amount"),
    [
        ((), "1"),
        ((("seat", "bob"),), "3"),
        ((("seat", "ann"),), "4"),
        ((("seat", ""),), "3"),
        ((("region", "us"), ("seat", "bob")), "5"),
        ((("region", "us"), ("seat", "ann")), "6"),
        ((("region", "eu"), ("seat", "cid")), "7"),
        # Two limits name one value each: the limit that names the first key applies.
        ((("region", "eu"), ("seat", "ann")), "7"),
        ((("region", "eu"), ("seat", "bob")), "8"),
        # A limit of all usage is no limit of a group, and a limit of a group is no limit of all usage.
        ((("region", "eu"),), None),
        ((("model", "a"), ("region", "eu"), ("seat", "bob")), None),
        ((("team", "a"),), None),
    ],
)
def test_the_limit_of_a_gauge_has_its_keys_and_most_of_its_values(group: Group, amount: str | None) -> None:
    assert LIMITS.find(TOKENS, group) == (None if amount is None else Decimal(amount))


def test_a_limit_applies_only_to_its_unit_and_the_customers_own_comes_first() -> None:
    assert LIMITS.find(USD, ()) == 2
    assert LIMITS.find(USD, (("seat", "ann"),)) is None
    assert LIMITS.find(None, ()) is None
    assert NO_LIMITS.find(USD, ()) is None
    plan = Limits([limit("10"), limit("30", (("seat", "ann"),)), limit("20", unit=Unit(currency="EUR"))])
    # The customer's own limit applies before the plan's, even where the plan's names more values.
    own = Limits([limit("3", (("seat", None),))])
    assert limit_of((own, plan), TOKENS, (("seat", "ann"),)) == 3
    assert limit_of((own, plan), TOKENS, ()) == 10
    assert limit_of((own, plan), USD, ()) is None


def test_changed_limits_keep_the_epoch_of_their_change() -> None:
    before = Limits([limit("1", epoch=3), limit("2", unit=USD, epoch=5)])
    after = Limits([limit(None, epoch=7), limit("4", unit=USD, epoch=6)], before)
    assert [before.find(TOKENS, ()), before.find(USD, ())] == [Decimal(1), Decimal(2)]
    assert [after.find(TOKENS, ()), after.find(USD, ())] == [None, Decimal(4)]
    assert (before.changed_epoch, after.changed_epoch) == (5, 7)
    assert Limits((), after).changed_epoch == 7
    assert NO_LIMITS.changed_epoch == 0


def percent(text: str, resolve: str | None = None) -> Threshold:
    return Threshold(
        percent_of_limit=Decimal(text), resolve_percent=None if resolve is None else Decimal(resolve), notify_on=BOTH
    )


def at_limit(thresholds: ThresholdSet, amount: str | None) -> ThresholdSet:
    with exact_arithmetic():
        return thresholds.with_limit(None if amount is None else Decimal(amount))


def follow(thresholds: ThresholdSet, values: Sequence[str], state: AlertState | None = None) -> Evaluation:
    with exact_arithmetic():
        return evaluate(
            thresholds, state or AlertState(), ZERO, [Step(Decimal(value), None) for value in values], NOW
        )


def notified(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    return [(one.kind.value, one.threshold.key, f"{one.level:f}") for one in evaluation.transitions]


def test_a_changed_limit_moves_the_levels_and_keeps_the_keys() -> None:
    thresholds = ThresholdSet.of(
        (percent("80"), percent("150"), Threshold(Decimal(90), notify_on=BOTH)), Direction.RISING
    )
    first = follow(at_limit(thresholds, "100"), ["100"])
    assert notified(first) == [("REACHED", "limit:80", "80.00"), ("REACHED", "90", "90")]
    same = follow(at_limit(thresholds, "125"), ["100"], first.state)
    assert notified(same) == []
    assert same.state.reached["limit:80"].level == 100
    raised = follow(at_limit(thresholds, "126"), ["100"], same.state)
    assert notified(raised) == [("RESOLVED", "limit:80", "100.80")]
    lowered = follow(at_limit(thresholds, "50"), ["100"], raised.state)
    assert notified(lowered) == [("REACHED", "limit:80", "40.00"), ("REACHED", "limit:150", "75.00")]
    removed = follow(at_limit(thresholds, None), ["100"], lowered.state)
    assert notified(removed) == [("RESOLVED", "limit:150", "75.00"), ("RESOLVED", "limit:80", "40.00")]
    assert list(removed.state.reached) == ["90"]


def test_a_percentage_has_no_level_without_a_limit_and_is_zero_at_limit_zero() -> None:
    thresholds = ThresholdSet.of((percent("80", "70"),), Direction.RISING)
    assert notified(follow(thresholds, ["-1", "0", "1000"])) == []
    assert trip_levels(thresholds, AlertState()) == (None, None)
    zero = at_limit(thresholds, "0")
    assert notified(follow(zero, ["-1"])) == []
    # It does not resolve at the value where it was reached, although the resolve value is 0 as well.
    found = follow(zero, ["0", "5", "0"])
    assert notified(found) == [("REACHED", "limit:80", "0.00")]
    assert notified(follow(zero, ["-1"], found.state)) == [("RESOLVED", "limit:80", "0.00")]


def test_a_threshold_reached_silently_resolves_silently_when_the_limit_goes() -> None:
    thresholds = ThresholdSet.of((percent("80"),), Direction.RISING)
    with exact_arithmetic():
        state = silent_state(at_limit(thresholds, "10"), Decimal(9), NOW)
    assert state.reached["limit:80"].silent
    gone = follow(thresholds, ["9"], state)
    assert (notified(gone), gone.state) == ([], AlertState())


def test_the_steps_of_a_recurring_threshold_do_not_move_with_the_limit() -> None:
    thresholds = ThresholdSet.of(
        (percent("80"), Threshold(Decimal(50)), Threshold(recurring_step=Decimal(20))), Direction.RISING
    )
    for amount in (None, "10", "1000"):
        assert at_limit(thresholds, amount).recurring_base == 50
    # They are notified in the order in which the gauge reached them.
    found = follow(at_limit(thresholds, "100"), ["95"])
    assert [level for _, _, level in notified(found)] == ["50", "70", "80.00", "90"]
    back = follow(at_limit(thresholds, "100"), ["0"], found.state)
    assert [level for _, _, level in notified(back)] == ["90", "80.00", "70", "50"]
    assert [one.level for one in back.transitions if one.furthest] == [50]


def test_thresholds_come_back_from_their_json() -> None:
    kept = (percent("80.5", "70"), percent("0"), Threshold(Decimal(80), resolve_value=Decimal(70)))
    assert thresholds_from_json(thresholds_json(kept)) == kept
    assert thresholds_json(kept)[0]["percent_of_limit"] == "80.5"
    assert "value" not in thresholds_json(kept)[0]


def test_a_percentage_of_the_longest_numbers_is_exact() -> None:
    number = "12345678901234567890.123456789012345678"
    thresholds = at_limit(ThresholdSet.of((percent(number),), Direction.RISING), number)
    digits = int(number.replace(".", ""))
    assert thresholds.fixed[0].value.as_tuple().exponent == -38
    with exact_arithmetic():
        assert thresholds.fixed[0].value.scaleb(38) == digits * digits


numbers = st.decimals(min_value=0, max_value=300, places=3)
percents = st.lists(numbers, min_size=1, max_size=5, unique=True)


@given(
    percents,
    st.decimals(min_value="0.001", max_value=1000, places=3),
    st.lists(st.decimals(min_value=-100, max_value=3000, places=2), max_size=8),
    st.booleans(),
)
def test_percentage_thresholds_give_the_same_transitions_as_values(
    shares: list[Decimal], amount: Decimal, values: list[Decimal], hysteresis: bool
) -> None:
    with exact_arithmetic():
        in_percent, as_values = [], []
        for share in shares:
            resolve = share - 5 if hysteresis else None
            in_percent.append(Threshold(percent_of_limit=share, resolve_percent=resolve, notify_on=BOTH))
            back = None if resolve is None else resolve * amount / 100
            as_values.append(Threshold(share * amount / 100, resolve_value=back, notify_on=BOTH))
        threshold_set = ThresholdSet.of(tuple(in_percent), Direction.RISING).with_limit(amount)
        plain = ThresholdSet.of(tuple(as_values), Direction.RISING)
        steps = [Step(value, None) for value in values]
        found = evaluate(threshold_set, AlertState(), ZERO, steps, NOW)
        expected = evaluate(plain, AlertState(), ZERO, steps, NOW)
        assert trip_levels(threshold_set, found.state) == trip_levels(plain, expected.state)
        assert silent_state(threshold_set, amount, NOW).reached.keys() == {
            f"limit:{key}" for key in _shares(in_percent, silent_state(plain, amount, NOW), as_values)
        }
    assert [_plain(one) for one in found.transitions] == [_plain(one) for one in expected.transitions]
    assert sorted(one.level for one in found.state.reached.values()) == sorted(
        one.level for one in expected.state.reached.values()
    )


def _plain(transition: Transition) -> Transition:
    """The transition without the fields that differ by definition."""
    return replace(transition, threshold=Threshold())


def _shares(in_percent: list[Threshold], state: AlertState, as_values: list[Threshold]) -> set[str]:
    """The percentages whose fixed thresholds are reached."""
    return {
        one.key.removeprefix("limit:")
        for one, plain in zip(in_percent, as_values, strict=True)
        if plain.key in state.reached
    }


def test_a_limit_of_one_unit_does_not_replace_limits_of_others() -> None:
    first = Limits([limit("10")])
    both = Limits([limit("5", unit=USD, epoch=2)], first)
    assert (both.find(TOKENS, ()), both.find(USD, ())) == (Decimal(10), Decimal(5))
    gone = Limits([limit(None, unit=USD, epoch=3)], both)
    assert (gone.find(TOKENS, ()), gone.find(USD, ())) == (Decimal(10), None)


def test_a_limit_of_zero_is_found_and_a_removed_limit_is_not() -> None:
    plan = Limits([limit("10")])
    zero = Limits([limit("0")])
    assert limit_of((zero, plan), TOKENS, ()) == ZERO
    assert limit_of((Limits([limit(None, epoch=2)], zero), plan), TOKENS, ()) == Decimal(10)


HOURLY, DAILY = LimitWindow(WindowKind.HOUR), LimitWindow(WindowKind.DAY)
HARD, SOFT = Enforcement.HARD, Enforcement.SOFT


def test_a_limit_of_another_window_is_no_limit_of_a_gauge() -> None:
    limits = Limits([limit("5", window=HOURLY, epoch=9), limit("7", epoch=3), limit("1", window=DAILY, unit=USD)])
    assert (limits.find(TOKENS, ()), limits.find(USD, ())) == (Decimal(7), None)
    # A gauge needs no evaluation when such a limit changes.
    assert limits.changed_epoch == 3
    gone = Limits([limit(None, epoch=10), limit(None, window=HOURLY, epoch=11)], limits)
    assert (gone.find(TOKENS, ()), gone.changed_epoch) == (None, 10)


def test_limits_enforce_while_any_of_them_has_an_enforcement_and_an_amount() -> None:
    plain = Limits([limit("5")])
    assert not plain.enforces
    soft = Limits([limit("5", window=DAILY, enforcement=SOFT)], plain)
    assert soft.enforces
    assert not plain.enforces
    assert not Limits([limit(None, window=DAILY, enforcement=SOFT)], soft).enforces
    assert not Limits([limit("5", window=DAILY)], soft).enforces
    assert not NO_LIMITS.enforces
    assert NO_LIMITS.enforced is NOTHING_ENFORCED


def test_usage_meets_the_limits_of_each_window_with_their_ids() -> None:
    own = Limits(
        [limit("5", enforcement=HARD, limit_id="month"), limit("2", window=HOURLY, limit_id="hour", epoch=4)]
    )
    plan = Limits(
        [
            limit("9", enforcement=HARD, limit_id="plan-month"),
            limit("8", window=HOURLY, enforcement=HARD, limit_id="plan-hour"),
            limit("7", window=DAILY, enforcement=SOFT, limit_id="plan-day", epoch=6),
        ]
    )
    met = {one.limit.limit_id: one.limit for one in met_by(own.enforced, plan.enforced, TOKENS, {})}
    assert {name: one.amount for name, one in met.items()} == {"month": 5, "plan-day": 7}
    assert (met["plan-day"].enforcement, met["plan-day"].window, met["plan-day"].changed_epoch) == (SOFT, DAILY, 6)
