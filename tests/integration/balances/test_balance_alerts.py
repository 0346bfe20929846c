"""Alerts on balances: remaining amounts change by drawdown, by facts and with time."""

from datetime import timedelta
from decimal import Decimal

from generated.tidemark.v1 import (
    condition_pb2,
    customer_alert_pb2,
    filter_pb2,
)
from runtime.clock import ManualClock
from tests.support.balances.holder import GRANT, LICENSE, SEAT, Holder, alert
from tests.support.usage.caller import Caller, ShortTransition, calling, on_customer, until

OK, IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK, customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM

COMMITS = condition_pb2.LowRemainingCommitBalanceReachedCondition()
PERCENT = condition_pb2.LowRemainingCommitPercentageReachedCondition()


async def test_drawdown_to_a_threshold_is_reported_in_the_answer(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100")
    low = await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    assert await acme.spend("e1", "79.99") == []
    assert await acme.spend("e2", "0.01") == [ShortTransition("REACHED", "20", "20.01", "20", "e2")]
    assert await acme.spend("e3", "5") == []
    assert await acme.spend("e4", "-5.01") == [ShortTransition("RESOLVED", "20", "15", "20.01", "e4")]
    assert await acme.remaining() == {"c1": Decimal("20.01")}
    state = await caller.state(low.alert_id)
    assert (state.status, state.gauges[0].gauge.value, state.no_data) == (OK, "20.01", False)


async def test_customer_without_a_commit_is_in_alarm_until_one_is_granted(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.spend("e0", "1")
    low = await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    state = await caller.state(low.alert_id)
    assert (state.status, state.no_data) == (IN_ALARM, True)
    new = Holder(caller, "newcomer")
    await new.spend("e1", "1")
    assert await new.notified() == [[ShortTransition("REACHED", "20", "0", "0", "")]]
    await acme.put("c1", "100")
    assert await acme.notified() == [
        [ShortTransition("REACHED", "20", "0", "0", "")],
        [ShortTransition("RESOLVED", "20", "0", "100", "")],
    ]


async def test_percentage_follows_the_granted_amount(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "300")
    low = await caller.create(alert("33.4", "10", low_remaining_commit_percentage_reached=PERCENT))
    assert await acme.spend("e1", "199") == []
    crossed = await acme.spend("e2", "1")
    assert [(one.kind, one.level, one.value) for one in crossed] == [("REACHED", "33.4", "33.333333333333333334")]
    await acme.adjust("c1", "100")  # 200 of 400
    assert (await acme.notified())[-1] == [ShortTransition("RESOLVED", "33.4", "33.333333333333333334", "50", "")]
    assert (await caller.state(low.alert_id)).gauges[0].gauge.value == "50"
    await acme.void("c1")
    state = await caller.state(low.alert_id)
    assert (state.no_data, state.status) == (True, OK)


async def test_remaining_amount_of_a_segment_ends_with_the_segment(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    end = now + timedelta(hours=1)
    await acme.put("c1", spans=[("50", now, end), ("70", end + timedelta(hours=1), None)])
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    clock.set(end - timedelta(microseconds=1))
    assert await acme.notified() == []
    clock.set(end)
    assert await acme.notified(1) == [[ShortTransition("REACHED", "20", "50", "0", "")]]
    clock.set(end + timedelta(hours=1))
    assert (await acme.notified(2))[1] == [ShortTransition("RESOLVED", "20", "0", "70", "")]


async def test_days_left_notify_when_that_many_days_are_left(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    await acme.put("c1", spans=[("50", now, now + timedelta(days=10))])
    days = condition_pb2.LowRemainingDaysForCommitSegmentReachedCondition()
    await caller.create(alert("7", "3", "0", low_remaining_days_for_commit_segment_reached=days))
    clock.set(now + timedelta(days=3) - timedelta(seconds=1))
    assert await acme.notified() == []
    clock.set(now + timedelta(days=3))
    assert [(one.kind, one.level, one.value) for one in (await acme.notified(1))[0]] == [("REACHED", "7", "7")]
    clock.set(now + timedelta(days=10, seconds=5))  # late: each due time is evaluated as of itself, in order
    notified = await acme.notified(3)
    assert [(one.level, one.value) for crossed in notified[1:] for one in crossed] == [("3", "3"), ("0", "0")]


async def test_each_seat_has_its_own_gauge(caller: Caller) -> None:
    acme = Holder(caller)
    for seat in ("ann", "bob"):
        await acme.put(f"s-{seat}", "10", kind=SEAT, seat=("user", seat))
    await acme.put("c1", "100")
    seats = condition_pb2.LowRemainingSeatBalanceReachedCondition(
        seat_filter=filter_pb2.SeatFilter(seat_group_key="user")
    )
    await caller.create(alert("2", low_remaining_seat_balance_reached=seats))
    assert await acme.spend("e1", "8", user="ann") == [ShortTransition("REACHED", "2", "10", "2", "e1")]
    assert await acme.spend("e2", "8", user="bob") == [ShortTransition("REACHED", "2", "10", "2", "e2")]
    assert await acme.spend("e3", "5", user="bob") == []
    assert await acme.remaining() == {"s-ann": 2, "s-bob": 0, "c1": 97}


async def test_seat_credits_start_and_end_with_their_segments(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    end = now + timedelta(hours=1)
    for seat, its_end in (("ann", end), ("bob", end), ("cid", end + timedelta(hours=1))):
        await acme.put(f"s-{seat}", spans=[("10", now, its_end)], kind=SEAT, seat=("user", seat))
    await acme.put("s-later", spans=[("5", end, None)], kind=SEAT, seat=("user", "bob"))
    seats = condition_pb2.LowRemainingSeatBalanceReachedCondition(
        seat_filter=filter_pb2.SeatFilter(seat_group_key="user")
    )
    await caller.create(alert("2", low_remaining_seat_balance_reached=seats))
    clock.set(end)
    assert await acme.notified(1) == [[ShortTransition("REACHED", "2", "10", "0", "")]]
    clock.set(end + timedelta(hours=3))
    assert await acme.spend("e1", "4", user="bob") == [ShortTransition("REACHED", "2", "5", "1", "e1")]
    assert len(await acme.notified()) == 3


async def test_credit_balance_depleted_and_recovered_notify(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("g0", "1", kind=GRANT)
    depleted, recovered = (
        condition_pb2.CreditBalanceDepletedCondition(),
        condition_pb2.CreditBalanceRecoveredCondition(),
    )
    await caller.create(alert(scope=on_customer("acme"), credit_balance_depleted=depleted))
    await caller.create(alert(scope=on_customer("acme"), credit_balance_recovered=recovered))
    assert [one.kind for one in await acme.spend("e1", "3")] == ["REACHED"]
    assert await acme.overage() == {"USD": 2}
    await acme.put("g1", "5", kind=GRANT)
    assert len(await acme.notified()) == 2


async def test_usage_reaches_a_licence_threshold(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("l1", "200", kind=LICENSE, license_type="pro", metric="calls")
    used = condition_pb2.LicenseBalanceThresholdReachedCondition(license_type="pro")
    await caller.create(alert("50", scope=on_customer("acme"), license_balance_threshold_reached=used))
    await caller.send(caller.event("e1", "99"))
    answer = await caller.send(caller.event("e2", "1"))
    assert [(one.level, one.value) for one in answer.transitions] == [("50", "50")]


async def test_days_left_in_a_plan_reach_and_resolve_a_threshold(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    plan = condition_pb2.LowRemainingDaysInPlanReachedCondition()
    await caller.create(alert("2", low_remaining_days_in_plan_reached=plan))
    await acme.plan(end=now + timedelta(days=3))
    assert await acme.notified() == []
    clock.set(now + timedelta(days=1))
    assert [(one.kind, one.level) for one in (await acme.notified(1))[0]] == [("REACHED", "2")]
    await acme.plan(end=now + timedelta(days=30))
    assert [(one.kind, one.level) for one in (await acme.notified(2))[1]] == [("RESOLVED", "2")]


async def test_replica_whose_clock_is_behind_does_not_restore_an_ended_segment(
    caller: Caller, clock: ManualClock
) -> None:
    acme, now = Holder(caller), clock.now()
    end = now + timedelta(hours=1)
    await acme.put("c1", spans=[("100", now, end), ("70", end, None)])
    await caller.create(alert("20", "65", low_remaining_commit_balance_reached=COMMITS))
    behind = ManualClock(end - timedelta(seconds=1))
    async with calling(caller.database_url, behind, caller.organization, caller.key) as other:
        clock.set(end)

        async def turned() -> bool:
            [[value]] = await caller.rows("SELECT value FROM gauge WHERE organization_id = %(organization_id)s")
            return bool(value == 70)

        await until(turned)
        assert await Holder(other).spend("e1", "30") == []
        assert await turned()
        [[drawn]] = await caller.rows(
            "SELECT drawn FROM balance_segment WHERE organization_id = %(organization_id)s AND segment_number = 1"
        )
        assert drawn == 30
        await Holder(other).adjust("c1", "1", segment=1)
        assert await turned()
    assert await acme.notified() == []


async def test_seat_has_no_data_before_its_credit_starts(caller: Caller, clock: ManualClock) -> None:
    acme, now = Holder(caller), clock.now()
    seats = condition_pb2.LowRemainingSeatBalanceReachedCondition(
        seat_filter=filter_pb2.SeatFilter(seat_group_key="user")
    )
    created = await caller.create(alert("2", low_remaining_seat_balance_reached=seats))
    begin = now + timedelta(hours=1)
    await acme.put("s1", spans=[("1", begin, None)], kind=SEAT, seat=("user", "ann"))
    state = await caller.state(created.alert_id)
    assert (state.no_data, list(state.gauges)) == (True, [])
    clock.set(begin)
    assert await acme.notified(1) == [[ShortTransition("REACHED", "2", "1", "1", "")]]


async def test_percentage_is_read_again_when_usage_draws_after_a_first_grant(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "0", allow_overage=True)
    created = await caller.create(alert("50", low_remaining_commit_percentage_reached=PERCENT))
    assert await acme.spend("e1", "60") == []
    assert (await caller.state(created.alert_id)).no_data
    await acme.adjust("c1", "200")
    assert (await caller.state(created.alert_id)).gauges[0].gauge.value == "70"
    assert [(one.level, one.value) for one in await acme.spend("e2", "40")] == [("50", "50")]
