"""Alerts on balances whose segments start, end, are voided or have no end, and several thresholds at once."""

from datetime import datetime, timedelta
from decimal import Decimal

from generated.tidemark.v1 import (
    customer_alert_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from tests.support.balances.holder import CREDIT, GRANT, LICENSE, SEAT, Holder
from tests.support.balances.wording import create, notified_kinds, values, written
from tests.support.usage.caller import Caller, ShortTransition

OK, IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK, customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
ACME = 'customer { customer_id: "acme" }'
DAYS = "low_remaining_days_for_commit_segment_reached {}"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def test_percentage_has_no_data_between_segments_and_continues_with_the_next(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    spans: list[tuple[str, datetime, datetime | None]] = [
        ("100", now + HOUR, now + 2 * HOUR),
        ("40", now + 3 * HOUR, None),
    ]
    await acme.put("c1", spans=spans)
    low = await create(acme, "low_remaining_commit_percentage_reached {}", "20")
    assert (await caller.state(low)).no_data
    clock.set(now + HOUR)
    assert await acme.spend("e1", "79") == []
    assert await values(acme, low) == {(): 21}
    assert await acme.spend("e2", "1") == [ShortTransition("REACHED", "20", "21", "20", "e2")]
    clock.set(now + 2 * HOUR)
    await acme.adjust("c1", "1", segment=2)  # evaluates the due end first
    state = await caller.state(low)
    assert (state.no_data, state.status) == (True, IN_ALARM)  # the end of the data resolves nothing
    clock.set(now + 3 * HOUR)
    assert [(one.kind, one.level, one.value) for one in (await acme.notified(2))[1]] == [("RESOLVED", "20", "100")]
    assert await values(acme, low) == {(): 100}


async def test_notification_has_the_time_at_which_the_threshold_was_reached(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c1", spans=[("1", now, now + 10 * DAY)])
    await create(acme, DAYS, "7")
    clock.set(now + 3 * DAY + timedelta(minutes=20))  # the timer runs 20 minutes late
    await acme.notified(1)
    [stored] = await caller.notifications()
    [transition] = stored.body["data"]["transitions"]
    assert transition["event_time"] == "2026-03-18T12:00:00.000000Z"
    assert "event_id" not in transition
    assert (transition["value"], stored.body["timestamp"]) == ("7", "2026-03-18T12:20:00.000000Z")
    assert stored.body["data"]["gauge"] == {
        "customer_id": "acme",
        "reading": "DAYS_LEFT",
        "balance_id": "c1",
        "segment_number": 1,
    }


async def test_segment_that_starts_with_few_days_left_notifies_at_its_start(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c1", spans=[("1", now + DAY, now + 4 * DAY)])
    low = await create(acme, DAYS, "7", "2")
    assert (await values(acme, low), (await caller.state(low)).no_data) == ({}, True)
    clock.set(now + DAY)
    assert await acme.notified(1) == [[ShortTransition("REACHED", "7", "3", "3", "")]]


async def test_end_that_is_moved_into_the_past_is_reached_once(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c1", spans=[("1", now - 9 * DAY, now + 10 * DAY)])
    await acme.plan(end=now + 10 * DAY)
    segments = await create(acme, DAYS, "7", "0")
    plan = await create(acme, "low_remaining_days_in_plan_reached {}", "7", "0")
    for _ in range(2):
        await acme.put("c1", spans=[("1", now - 9 * DAY, now - DAY)])
        await acme.plan(end=now - DAY)
    notified = {one.alert_id: one.transitions for one in await caller.notifications()}
    both = [ShortTransition("REACHED", "7", "10", "0", ""), ShortTransition("REACHED", "0", "10", "0", "")]
    assert notified == {segments: both, plan: both}
    assert len(await caller.notifications()) == 2
    # A segment that ended before the first evaluation of an alert notifies nothing.
    await create(acme, DAYS, "7", "0")
    await create(acme, "low_remaining_days_in_plan_reached {}", "7", "0")
    assert len(await caller.notifications()) == 2


async def test_segment_without_an_end_has_no_days_left_and_a_voided_one_keeps_its_state(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("forever", "1")
    await acme.put("c1", spans=[("1", now, now + 5 * DAY)])
    low = await create(acme, DAYS, "7", "2")
    assert await values(acme, low) == {("c1", "1"): 5}
    assert await notified_kinds(acme, low) == ["REACHED"]
    await acme.void("c1")
    assert await values(acme, low) == {}
    clock.set(now + 6 * DAY)
    await acme.put("c2", spans=[("1", now, now + 60 * DAY)])  # would evaluate every due timer
    assert await notified_kinds(acme, low) == ["REACHED"]


async def test_seat_whose_credit_has_ended_reads_zero(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("ann", kind=SEAT, seat=("user", "ann"), spans=[("10", now, now + HOUR)])
    await acme.put("bob", "10", kind=SEAT, seat=("user", "bob"))
    low = await create(acme, 'low_remaining_seat_balance_reached { seat_filter { seat_group_key: "user" } }', "2")
    clock.set(now + HOUR)
    assert await acme.notified(1) == [[ShortTransition("REACHED", "2", "10", "0", "")]]
    assert (await caller.state(low)).status == IN_ALARM
    clock.advance(HOUR)
    await acme.void("bob")
    assert (await acme.notified(2))[1] == [ShortTransition("REACHED", "2", "10", "0", "")]
    clock.advance(HOUR)
    await acme.put("more", "10", kind=SEAT, seat=("user", "ann"))
    assert (await acme.notified(3))[2] == [ShortTransition("RESOLVED", "2", "0", "10", "")]


async def test_credit_balance_is_depleted_by_a_segment_end_and_recovers_with_a_segment_start(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("g1", kind=GRANT, spans=[("10", now, now + HOUR), ("10", now + 2 * HOUR, None)])
    depleted = await create(acme, "credit_balance_depleted {}", scope=ACME)
    recovered = await create(acme, "credit_balance_recovered {}", scope=ACME)
    clock.set(now + HOUR)
    assert await acme.notified(1) == [[ShortTransition("REACHED", "0", "10", "0", "")]]
    clock.set(now + 2 * HOUR)
    assert (await acme.notified(2))[1] == [ShortTransition("REACHED", "0", "0", "10", "")]
    assert (await notified_kinds(acme, depleted), await notified_kinds(acme, recovered)) == (["REACHED"], ["REACHED"])


async def test_balance_that_follows_another_without_a_gap_notifies_nothing(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    end = now + HOUR
    await acme.put("g1", kind=GRANT, spans=[("10", now, end)])
    await acme.put("g2", kind=GRANT, spans=[("10", end, None)])
    for condition in ("credit_balance_depleted {}", "credit_balance_recovered {}"):
        await create(acme, condition, scope=ACME)
    low = await create(acme, "low_credit_balance_reached {}", "5")
    clock.set(end)
    await acme.adjust("g2", "1")
    assert await values(acme, low) == {(): 11}
    assert await acme.notified() == []


async def test_licence_threshold_re_arms_with_the_next_segment(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    end = now + DAY
    spans: list[tuple[str, datetime, datetime | None]] = [("10", now, end), ("10", end, end + DAY)]
    await acme.put("l1", kind=LICENSE, license_type="pro", metric="launches", spans=spans)
    await create(acme, 'license_balance_threshold_reached { license_type: "pro" }', "50", "90", scope=ACME)
    await caller.send(caller.event("e1", "10", metric="launches"))
    clock.set(end)
    notified = await acme.notified(2)
    assert [[(one.kind, one.level, one.value) for one in each] for each in notified] == [
        [("REACHED", "50", "100"), ("REACHED", "90", "100")],
        [("RESOLVED", "90", "0"), ("RESOLVED", "50", "0")],
    ]
    answer = await caller.send(caller.event("e2", "5", metric="launches"))
    assert [(one.level, one.value) for one in answer.transitions] == [("50", "50")]


async def test_thresholds_reached_together_are_in_one_notification_in_descending_order(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("k1", "100", kind=CREDIT)
    await create(acme, "low_remaining_contract_credit_balance_reached {}", "5", "50", "20")
    crossed = await acme.spend("e1", "97")
    assert [one.level for one in crossed] == ["50", "20", "5"]
    [stored] = await caller.notifications()
    shown = stored.body["data"]["transitions"]
    assert [(one["level"], one["furthest"]) for one in shown] == [("50", False), ("20", False), ("5", True)]


async def test_recurring_threshold_continues_below_the_last_fixed_threshold(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("g1", "1000", kind=GRANT, allow_overage=True)
    alert = written("credit_balance_dropped {}", "500", scope=ACME)
    alert.thresholds.append(threshold_pb2.Threshold(recurring_step="200"))
    await caller.create(alert)
    levels = []
    for number, cost in enumerate(("500", "199.99", "0.01", "0", "450", "1")):
        levels.append([Decimal(one.level) for one in await acme.spend(f"e{number}", cost)])
    assert levels == [[500], [], [300], [], [100, -100], []]
