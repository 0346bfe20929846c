"""Requests: a recharge is requested when little remains, once, of the right amount, and within its caps."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_service_pb2,
    billing_period_pb2,
    customer_pb2,
    event_type_pb2,
    notification_pb2,
    recharge_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_datetime, to_timestamp
from store.postgres.database import Database
from tests.support.balances.holder import LICENSE, SEAT
from tests.support.balances.recharging import NO_COOLDOWN, PAID, REQUESTED, Recharging
from tests.support.balances.timing import timers_of, work_off
from tests.support.usage.caller import Caller

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def prepaid(caller: Caller, amount: str = "50", **fields: object) -> Recharging:
    """A customer with a prepaid balance."""
    acme = Recharging(caller)
    await acme.put("prepaid", amount, **fields)  # type: ignore[arg-type]
    return acme


async def test_usage_that_lowers_a_balance_requests_what_is_missing(caller: Caller) -> None:
    acme = await prepaid(caller)
    policy = await acme.put_policy()
    assert (policy.state, policy.open_recharge_id) == (recharge_pb2.RECHARGE_POLICY_STATE_ENABLED, "")
    await acme.spend("e1", "30")
    assert await acme.recharges() == []  # exactly 20 remain, which is not below 20
    await acme.spend("e2", "7.5")
    requested = await acme.open()
    assert (requested.amount, requested.remaining, requested.spend.currency) == ("87.5", "12.5", "USD")
    assert (requested.sequence, requested.attempt, requested.state) == (1, 1, REQUESTED)
    assert to_datetime(requested.expire_time) == to_datetime(requested.create_time) + timedelta(days=7)
    assert (await acme.get_policy()).open_recharge_id == requested.recharge_id
    await acme.spend("e3", "10")
    assert await acme.amounts() == ["87.5"]
    assert await acme.notified_recharges() == [("requested", requested.recharge_id)]


async def test_notification_says_the_same_in_the_body_and_in_the_history(caller: Caller) -> None:
    acme = await prepaid(caller, "10")
    policy = await acme.put_policy()
    stored = [one for one in await caller.notifications() if one.event_type == "recharge.requested"]
    requested = await acme.open()
    assert stored[0].body["data"] == {
        "recharge_id": requested.recharge_id,
        "customer_id": "acme",
        "balance_id": "prepaid",
        "currency": "USD",
        "state": "REQUESTED",
        "sequence": 1,
        "attempt": 1,
        "amount": "90",
        "remaining": "10",
        "request_time": "2026-03-15T12:00:00.000000Z",
        "expire_time": "2026-03-22T12:00:00.000000Z",
    }
    asked = alert_service_pb2.ListNotificationsRequest(
        customer_ids=["acme"], event_types=[event_type_pb2.EVENT_TYPE_RECHARGE_REQUESTED]
    )
    [shown] = (await caller.alerts.ListNotifications(asked, metadata=caller.metadata)).notifications
    assert isinstance(shown, notification_pb2.Notification)
    assert shown.recharge == requested
    assert (shown.alert_id, shown.condition_type, shown.sequence, shown.customer_id) == ("", 0, 0, "acme")
    assert policy.open_recharge_id == requested.recharge_id  # a low balance is seen when the policy is put


@pytest.mark.parametrize("change", ["adjust", "decrement", "put", "segment", "void of usage"])
async def test_every_change_that_lowers_a_balance_requests_a_recharge(
    caller: Caller, clock: ManualClock, database: Database, change: str
) -> None:
    now = clock.now()
    acme = Recharging(caller)
    await acme.put("prepaid", spans=[("10", now - DAY, None), ("40", now - DAY, now + HOUR)])
    await acme.spend("e1", "-5")
    await acme.put_policy()
    assert await acme.recharges() == []
    match change:
        case "adjust":
            await acme.adjust("prepaid", "-45", segment=2)
        case "decrement":
            request = account_service_pb2.DecrementBalancesRequest(
                customer_id="acme", adjustment_id="d", amount="45", spend=access_pb2.SpendAccess(currency="USD")
            )
            await caller.accounts.DecrementBalances(request, metadata=caller.metadata)
        case "put":
            await acme.put("prepaid", spans=[("10", now - DAY, None), ("5", now - DAY, now + HOUR)])
        case "segment":
            clock.set(now + HOUR)
            await work_off(timers_of(database, clock), database, clock)
        case "void of usage":
            await acme.spend("e2", "33")
            assert await acme.recharges() == []
    if change != "void of usage":
        [requested] = await acme.recharges()
        assert Decimal(requested.remaining) + Decimal(requested.amount) == 100
        assert Decimal(requested.remaining) < 20


async def test_fixed_amounts_are_requested_again_while_the_balance_is_low(caller: Caller) -> None:
    acme = await prepaid(caller, "5")
    await acme.put_policy(amount="10", max_count_per_period=2)
    first = await acme.open()
    answer = await acme.paid(first.recharge_id)
    second = await acme.open()  # 15 remain, so the next is requested in the transaction of the report
    assert answer.recharge_policy.open_recharge_id == second.recharge_id != first.recharge_id
    assert (second.sequence, second.attempt, second.remaining) == (2, 1, "15")
    await acme.paid(second.recharge_id)
    assert await acme.remaining() == {"prepaid": 25}
    await acme.spend("e1", "10")
    policy = await acme.get_policy()
    assert policy.wait_reason == recharge_pb2.RECHARGE_WAIT_REASON_MAX_COUNT
    assert to_datetime(policy.wait_end_time) == datetime(2026, 4, 1, tzinfo=UTC)


async def test_the_cap_of_a_period_cuts_the_last_recharge_and_ends_with_the_period(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await prepaid(caller, "10")
    await acme.put_policy(max_amount_per_period="150", min_amount="20")
    await acme.paid((await acme.open()).recharge_id)
    await acme.spend("e1", "85")
    await acme.paid((await acme.open()).recharge_id)
    await acme.spend("e2", "60")
    assert await acme.amounts() == ["90", "60"]  # of 85 that were missing, the cap left 60
    policy = await acme.get_policy()
    assert policy.wait_reason == recharge_pb2.RECHARGE_WAIT_REASON_MAX_AMOUNT
    assert policy.open_recharge_id == ""
    clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    await work_off(timers_of(database, clock), database, clock)
    assert await acme.amounts() == ["90", "60", "85"]


async def test_less_than_the_least_amount_and_cut_packages_are_not_requested(caller: Caller) -> None:
    acme = await prepaid(caller, "10")
    await acme.put("pack", "10")
    await acme.put_policy(max_amount_per_period="100", min_amount="20")
    await acme.put_policy("pack", amount="30", max_amount_per_period="50")
    for one in await acme.recharges():
        await acme.paid(one.recharge_id)
    await acme.adjust("prepaid", "-95")
    await acme.adjust("pack", "-35")
    assert await acme.recharges(REQUESTED) == []  # 10 of 100 are left, and 20 of 50
    await acme.put_policy(max_amount_per_period="100", min_amount="10")
    assert (await acme.open()).amount == "10"


async def test_the_period_of_the_cap_is_the_customers(caller: Caller, clock: ManualClock, database: Database) -> None:
    cycle = billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(clock.now() - HOUR), cadence=billing_period_pb2.CADENCE_DAY
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=cycle))
    acme = await prepaid(caller, "10")
    await acme.put_policy(max_count_per_period=1)
    await acme.paid((await acme.open()).recharge_id)
    await acme.spend("e1", "95")
    assert to_datetime((await acme.get_policy()).wait_end_time) == clock.now() - HOUR + DAY
    clock.advance(DAY)
    await work_off(timers_of(database, clock), database, clock)
    assert (await acme.open()).sequence == 2


async def test_a_paid_recharge_is_followed_by_its_cooldown(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await prepaid(caller, "10")
    await acme.put_policy(cooldown=HOUR)
    await acme.paid((await acme.open()).recharge_id)
    await acme.spend("e1", "85")
    policy = await acme.get_policy()
    assert policy.wait_reason == recharge_pb2.RECHARGE_WAIT_REASON_COOLDOWN
    assert to_datetime(policy.wait_end_time) == clock.now() + HOUR
    clock.advance(HOUR - timedelta(microseconds=1))
    await acme.spend("e2", "1")
    assert len(await acme.recharges()) == 1
    clock.advance(timedelta(microseconds=1))
    await work_off(timers_of(database, clock), database, clock)
    assert await acme.amounts() == ["90", "86"]
    assert (await acme.get_policy()).wait_reason == recharge_pb2.RECHARGE_WAIT_REASON_UNSPECIFIED


async def test_seats_licences_and_units_of_metrics_are_recharged_each_by_itself(caller: Caller) -> None:
    acme = Recharging(caller)
    for user in ("ann", "bob"):
        await acme.put(f"of {user}", "50", kind=SEAT, seat=("user", user))
        await acme.put_policy(f"of {user}")
    await acme.put("tokens", "50", metric="tokens")
    await acme.put_policy("tokens")
    await acme.put("editors", "50", kind=LICENSE, license_type="editor", draw=False)
    await acme.put_policy("editors")
    await acme.spend("e1", "40", user="ann")
    await caller.send(caller.event("e2", "31", "acme", metric="tokens"))
    await acme.adjust("editors", "-31")
    found = {one.balance_id: one for one in await acme.recharges()}
    assert {name: one.amount for name, one in found.items()} == {"of ann": "90", "tokens": "81", "editors": "81"}
    assert found["tokens"].quantity.metric_id == "tokens"


async def test_an_overdrawn_balance_is_filled_up_from_below_zero(caller: Caller) -> None:
    acme = await prepaid(caller, "50", allow_overage=True)
    await acme.put_policy()
    await acme.spend("e1", "80.000000000000000001")
    requested = await acme.open()
    assert (requested.remaining, requested.amount) == ("-30.000000000000000001", "130.000000000000000001")
    await acme.paid(requested.recharge_id)
    assert await acme.remaining() == {"prepaid": 100}


async def test_recharged_balances_of_two_customers_do_not_mix(caller: Caller) -> None:
    acme, other = await prepaid(caller, "10"), Recharging(caller, "other")
    await other.put("prepaid", "10")
    await acme.put_policy(cooldown=NO_COOLDOWN)
    await other.put_policy()
    mine, theirs = await acme.open(), await other.open()
    assert mine.recharge_id != theirs.recharge_id
    await acme.paid(mine.recharge_id)
    assert await acme.remaining() == {"prepaid": 100}
    assert await other.remaining() == {"prepaid": 10}
    assert (await other.open()).state != PAID
