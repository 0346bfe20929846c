"""Recharge policies: what becomes of one in each situation, and random stories like the reference model."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from evaluator.amounts import exact_arithmetic
from evaluator.balances import Unit
from evaluator.periods import Period
from evaluator.recharges import (
    BalanceReading,
    CancelReason,
    DisabledReason,
    LastResult,
    Policy,
    PolicyState,
    PolicyStep,
    RechargeState,
    RechargeTerms,
    Standing,
    WaitReason,
    advance,
    enabled_again,
    failed,
    failed_late,
    paid,
    paid_late,
    recharge_id_of,
)
from tests.reference.recharges import PAID, RechargeModel, Terms, month_of
from tests.support.balances.recharge_story import (
    START,
    Change,
    Delete,
    Enable,
    Put,
    Report,
    Use,
    Wait,
    apply,
    decimal,
    index_of,
    possible,
    shown,
    stories,
    text,
)

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
FIRST = recharge_id_of(1, "rcp_1", 1)


def terms(**values: Any) -> RechargeTerms:
    """Below 20, up to 100, unless another size is given."""
    plain: dict[str, Any] = {
        "below": Decimal(20),
        "up_to": None if "fixed" in values else Decimal(100),
        "fixed": None,
        "min_amount": Decimal(0),
        "max_amount": None,
        "max_count": None,
        "cooldown": timedelta(),
        "failure_cooldown": HOUR,
        "max_attempts": 3,
        "report_timeout": 7 * DAY,
    }
    return RechargeTerms(**plain | values)


def reading(remaining: str, **values: Any) -> BalanceReading:
    plain: dict[str, Any] = {"next_change": None, "voided": False, "period": MARCH}
    return BalanceReading(Unit(currency="USD"), Decimal(remaining), **plain | values)


def step(
    remaining: str,
    standing: Standing | None = None,
    *,
    now: datetime = NOW,
    seen: dict[str, Any] | None = None,
    **values: Any,
) -> PolicyStep:
    """What becomes of a policy. seen: of its balance; the others: of its terms."""
    policy = Policy("acme", "prepaid", "rcp_1", terms(**values), standing or Standing())
    with exact_arithmetic():
        return advance(1, policy, reading(remaining, **(seen or {})), now)


def requested(found: PolicyStep) -> Decimal | None:
    return None if found.requested is None else found.requested.amount


def waiting(found: PolicyStep) -> tuple[WaitReason | None, datetime | None, datetime | None]:
    standing = found.standing
    return standing.wait_reason, standing.wait_end_time, standing.due_time


OPEN = Standing(last_sequence=1, open_recharge_id=FIRST, due_time=NOW + HOUR)


def test_a_balance_is_recharged_below_its_level_and_not_at_it() -> None:
    assert requested(step("20")) is None
    assert requested(step("19.999999999999999999")) == Decimal("80.000000000000000001")
    assert requested(step("-5")) == 105
    assert requested(step("0", below=Decimal(0))) is None
    assert requested(step("3", fixed=Decimal(7))) == 7


def test_a_request_has_an_id_that_follows_from_policy_and_number() -> None:
    found = step("3")
    assert found.requested is not None
    assert (found.requested.recharge_id, found.requested.sequence, found.requested.attempt) == (FIRST, 1, 1)
    assert found.requested.expire_time == found.standing.due_time == NOW + 7 * DAY
    assert found.standing.open_recharge_id == FIRST
    later = step("3", Standing(last_sequence=1, failed_attempts=2, last_result=LastResult.PAID))
    assert later.requested is not None
    assert (later.requested.sequence, later.requested.attempt) == (2, 3)
    assert later.requested.recharge_id != FIRST


def test_while_one_is_open_nothing_happens_until_it_expires() -> None:
    assert step("-100", OPEN) == PolicyStep(OPEN)
    assert step("-100", OPEN, now=NOW + HOUR - timedelta(microseconds=1)) == PolicyStep(OPEN)
    found = step("50", OPEN, now=NOW + HOUR)
    assert (found.ended, found.end_state, found.requested) == (FIRST, RechargeState.EXPIRED, None)
    assert (found.standing.failed_attempts, found.standing.last_result) == (1, LastResult.FAILED)


def test_an_expired_one_is_followed_by_another_after_the_cooldown() -> None:
    found = step("3", OPEN, now=NOW + HOUR)
    assert waiting(found) == (WaitReason.COOLDOWN, NOW + 2 * HOUR, NOW + 2 * HOUR)
    at_once = step("3", OPEN, now=NOW + HOUR, failure_cooldown=timedelta())
    assert (at_once.ended, requested(at_once)) == (FIRST, Decimal(97))


@pytest.mark.parametrize(
    ("result", "values", "waits"),
    [
        (LastResult.PAID, {}, None),
        (LastResult.PAID, {"cooldown": HOUR}, HOUR),
        (LastResult.FAILED, {"cooldown": 2 * HOUR}, HOUR),
        (LastResult.FAILED, {"failure_cooldown": timedelta()}, None),
    ],
)
def test_cooldowns_depend_on_how_the_last_one_ended(
    result: LastResult, values: dict[str, Any], waits: timedelta | None
) -> None:
    standing = Standing(last_sequence=1, last_result=result, last_end_time=NOW)
    found = step("3", standing, **values)
    if waits is None:
        assert requested(found) == 97
    else:
        assert waiting(found) == (WaitReason.COOLDOWN, NOW + waits, NOW + waits)
        assert requested(step("3", standing, now=NOW + waits, **values)) == 97


def test_the_caps_of_a_period() -> None:
    cap: dict[str, Any] = {"max_amount": Decimal(150)}
    assert requested(step("3", seen={"used_amount": Decimal(53)}, **cap)) == 97
    assert requested(step("3", seen={"used_amount": Decimal(60)}, **cap)) == 90
    full = step("3", seen={"used_amount": Decimal(150)}, **cap)
    assert waiting(full) == (WaitReason.MAX_AMOUNT, MARCH.end, MARCH.end)
    more = step("3", seen={"used_amount": Decimal(160), "next_change": NOW + HOUR}, **cap)
    assert waiting(more) == (WaitReason.MAX_AMOUNT, MARCH.end, NOW + HOUR)
    assert requested(step("3", seen={"used_amount": Decimal(100)}, min_amount=Decimal(50), **cap)) == 50
    least = step("3", seen={"used_amount": Decimal(101)}, min_amount=Decimal(50), **cap)
    assert waiting(least)[0] is WaitReason.MAX_AMOUNT
    assert waiting(step("3", seen={"used_amount": Decimal(151 - 97)}, fixed=Decimal(97), **cap))[0] is not None
    counted = step("3", seen={"used_count": 2}, max_count=2)
    assert waiting(counted) == (WaitReason.MAX_COUNT, MARCH.end, MARCH.end)
    assert requested(step("3", seen={"used_count": 1}, max_count=2)) == 97


def test_what_a_policy_waits_for_is_forgotten_when_the_balance_is_filled_up() -> None:
    standing = Standing(wait_reason=WaitReason.MAX_COUNT, wait_end_time=MARCH.end, due_time=MARCH.end)
    assert step("20", standing, seen={"next_change": NOW + DAY}).standing == Standing(due_time=NOW + DAY)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (Standing(failed_attempts=3), DisabledReason.ATTEMPTS_FAILED),
        (Standing(failed_attempts=1, last_result=LastResult.PERMANENT), DisabledReason.PERMANENT_FAILURE),
    ],
)
def test_a_policy_that_failed_too_often_switches_itself_off_once(standing: Standing, reason: DisabledReason) -> None:
    found = step("3", standing)
    assert (found.disabled, found.requested) == (reason, None)
    off = found.standing
    assert (off.state, off.disabled_reason, off.disable_time, off.due_time) == (
        PolicyState.DISABLED,
        reason,
        NOW,
        None,
    )
    assert step("3", off, now=NOW + 30 * DAY) == PolicyStep(off)
    assert requested(step("3", enabled_again(off))) == 97


def test_fewer_attempts_that_are_allowed_now_switch_it_off_when_the_open_one_has_ended() -> None:
    standing = replace(OPEN, failed_attempts=2)
    assert step("3", standing, max_attempts=1) == PolicyStep(standing)
    found = step("3", standing, now=NOW + HOUR, max_attempts=1)
    assert (found.end_state, found.disabled) == (RechargeState.EXPIRED, DisabledReason.ATTEMPTS_FAILED)


def test_a_voided_balance_cancels_and_switches_off() -> None:
    found = step("3", OPEN, seen={"voided": True})
    assert (found.ended, found.end_state) == (FIRST, RechargeState.CANCELED)
    assert (found.cancel_reason, found.disabled) == (CancelReason.BALANCE_VOIDED, DisabledReason.BALANCE_VOIDED)
    assert found.standing.failed_attempts == 0
    assert step("3", found.standing, seen={"voided": True}) == PolicyStep(found.standing)


def test_reports_that_come_late_change_only_what_they_prove() -> None:
    newer = replace(OPEN, failed_attempts=2, last_result=LastResult.FAILED, last_end_time=NOW)
    assert paid_late(newer) == replace(newer, failed_attempts=0)
    assert failed_late(newer, permanently=False) == newer
    assert failed_late(newer, permanently=True) == newer  # the open one is an attempt of its own
    alone = replace(newer, open_recharge_id=None)
    assert failed_late(alone, permanently=True) == replace(alone, last_result=LastResult.PERMANENT)


# --- stories ------------------------------------------------------------------------------------------------


@dataclass
class _Recharge:
    policy_id: str
    sequence: int
    attempt: int
    amount: Decimal
    remaining: Decimal
    expire_time: datetime
    create_time: datetime
    state: RechargeState = RechargeState.REQUESTED
    reported: Report | None = None


@dataclass
class _Book:
    """A policy and its balance, kept in memory as the store keeps them."""

    now: datetime = NOW
    remaining: Decimal = field(default_factory=lambda: decimal(START))
    policy: Policy | None = None
    policies: int = 0
    recharges: list[_Recharge] = field(default_factory=list)

    def change(self, change: Change, model: RechargeModel) -> str:
        """Applies a change; `model`: before it."""
        answer = ""
        match change:
            case Use():
                self.remaining -= decimal(change.amount)
            case Put():
                self._put(terms_of(change.terms))
            case Enable():
                assert self.policy is not None
                if self.policy.standing.state is PolicyState.DISABLED:
                    self._stand(enabled_again(self.policy.standing))
            case Delete():
                assert self.policy is not None
                if self.policy.standing.open_recharge_id is not None:
                    self.recharges[-1].state = RechargeState.CANCELED
                self.policy = None
            case Wait():
                self.now += change.time
            case Report():
                answer = self._report(self.recharges[index_of(model, change)], change)
        while self._look():
            pass
        return answer

    def _put(self, found: RechargeTerms) -> None:
        if self.policy is None:
            self.policies += 1
            self.policy = Policy("acme", "prepaid", f"rcp_{self.policies}", found, Standing())
        else:
            self.policy = replace(self.policy, terms=found)

    def _stand(self, standing: Standing) -> None:
        assert self.policy is not None
        self.policy = replace(self.policy, standing=standing)

    def _report(self, one: _Recharge, report: Report) -> str:
        same = replace(report, back=0, amount=report.amount if report.kind == PAID else None)
        if one.reported is not None:
            return "replayed" if one.reported == same else "RECHARGE_ENDED"
        one.reported, one.state = same, RechargeState(report.kind)
        if report.kind == PAID:
            one.amount = one.amount if same.amount is None else decimal(same.amount)
            self.remaining += one.amount
        if self.policy is not None and self.policy.policy_id == one.policy_id:
            standing = self.policy.standing
            is_open = standing.open_recharge_id == recharge_id_of(1, one.policy_id, one.sequence)
            if report.kind == PAID:
                self._stand(paid(standing, self.now) if is_open else paid_late(standing))
            elif is_open:
                self._stand(failed(standing, self.now, permanently=report.permanent))
            else:
                self._stand(failed_late(standing, permanently=report.permanent))
        return ""

    def _look(self) -> bool:
        """Lets the policy look at its balance; returns whether anything changed."""
        if self.policy is None:
            return False
        policy = self.policy
        start, end = month_of(self.now)
        counting = [
            one
            for one in self.recharges
            if one.state in (RechargeState.PAID, RechargeState.REQUESTED)
            and one.create_time >= start
            and recharge_id_of(1, one.policy_id, one.sequence) != policy.standing.open_recharge_id
        ]
        seen = {
            "period": Period(start, end),
            "used_amount": sum((one.amount for one in counting), Decimal(0)),
            "used_count": len(counting),
        }
        with exact_arithmetic():
            found = advance(1, policy, reading(str(self.remaining), **seen), self.now)
        if found.ended is not None and found.end_state is not None:
            self.recharges[-1].state = found.end_state
        if (new := found.requested) is not None:
            self.recharges.append(
                _Recharge(
                    policy.policy_id,
                    new.sequence,
                    new.attempt,
                    new.amount,
                    new.remaining,
                    new.expire_time,
                    self.now,
                )
            )
        self._stand(found.standing)
        return found.standing != policy.standing


def terms_of(found: Terms) -> RechargeTerms:
    """The terms of a model."""
    return terms(
        below=decimal(found.below),
        up_to=None if found.level is None else decimal(found.level),
        fixed=None if found.fixed is None else decimal(found.fixed),
        min_amount=decimal(found.min_amount),
        max_amount=None if found.max_amount is None else decimal(found.max_amount),
        max_count=found.max_count,
        cooldown=found.cooldown,
        failure_cooldown=found.failure_cooldown,
        max_attempts=found.max_attempts,
        report_timeout=found.report_timeout,
    )


@settings(max_examples=200)
@given(story=stories(40))
def test_policies_equal_the_reference_model_for_random_stories(story: list[Change]) -> None:
    book, model = _Book(), RechargeModel(NOW, START)
    with exact_arithmetic():
        for change in story:
            if not possible(model, change):
                continue
            before = model.copy()
            assert book.change(change, before) == apply(model, change), change
            assert book.remaining == decimal(model.remaining), change
            found = [
                (one.sequence, one.attempt, one.remaining, one.state.value, one.expire_time) for one in book.recharges
            ]
            expected = [(one[0], one[1], Decimal(one[3]), one[4], one[5]) for one in shown(model)]
            assert found == expected, change
            assert [text(one.added or one.amount) for one in model.recharges] == [
                f"{one.amount.normalize():f}" for one in book.recharges
            ]
            if book.policy is not None:
                standing = book.policy.standing
                assert (standing.state.value, standing.failed_attempts) == (model.state, model.failures), change
                waits = None if standing.wait_reason is None else (standing.wait_reason.value, standing.wait_end_time)
                assert waits == model.waits, change
    assert len([one for one in model.recharges if one.state == "REQUESTED"]) <= 1
