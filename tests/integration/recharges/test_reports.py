"""Reports: a recharge is closed once, as paid or failed, also late; failures switch the policy off."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_service_pb2,
    condition_pb2,
    event_type_pb2,
    notification_pb2,
    recharge_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_datetime
from store.postgres.database import Database
from tests.support.balances.holder import alert
from tests.support.balances.recharging import CANCELED, EXPIRED, FAILED, NO_COOLDOWN, PAID, REQUESTED, Recharging
from tests.support.balances.timing import timers_of, work_off
from tests.support.server.running import metadata_of, reason_of
from tests.support.usage.caller import Caller, beside

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ENABLED = recharge_pb2.RECHARGE_POLICY_STATE_ENABLED
DISABLED = recharge_pb2.RECHARGE_POLICY_STATE_DISABLED


async def low(caller: Caller, amount: str = "10", **fields: object) -> Recharging:
    """A customer whose balance is low, with a policy, and so with an open recharge."""
    acme = Recharging(caller)
    await acme.put("prepaid", amount)
    await acme.put_policy(**fields)
    return acme


async def refusal(call: object) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """The refusal of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    return refused.value.code(), reason_of(refused.value), metadata_of(refused.value)


async def test_a_paid_recharge_is_in_the_balance_when_the_report_returns(caller: Caller) -> None:
    acme = await low(caller)
    await caller.create(
        alert("20", low_remaining_commit_balance_reached=condition_pb2.LowRemainingCommitBalanceReachedCondition())
    )
    requested = await acme.open()
    answer = await acme.paid(requested.recharge_id, payment_reference="pay-77")
    assert not answer.replayed
    assert (answer.recharge.state, answer.recharge.paid.amount) == (PAID, "90")
    assert (answer.recharge.paid.segment_number, answer.recharge.paid.payment_reference) == (1, "pay-77")
    assert answer.recharge_policy.open_recharge_id == ""
    assert answer.recharge == await acme.get(requested.recharge_id)
    assert await acme.remaining() == {"prepaid": 100}
    assert (await acme.entries())[-1].adjustment_id == requested.recharge_id
    evaluated = [one for one in await caller.notifications() if one.alert_id]
    kinds = [each.kind for one in evaluated for each in one.transitions]
    assert kinds == ["REACHED", "RESOLVED"]  # the alert sees the payment in the same transaction


async def test_the_same_report_again_changes_nothing_and_another_is_refused(caller: Caller) -> None:
    acme = await low(caller)
    requested = await acme.open()
    first = await acme.paid(requested.recharge_id)
    for other in (acme.paid(requested.recharge_id, amount="91"), acme.failed(requested.recharge_id)):
        code, reason, metadata = await refusal(other)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_RECHARGE_ENDED")
        assert metadata == {"customer_id": "acme", "recharge_id": requested.recharge_id, "state": "PAID"}
    again = await acme.paid(requested.recharge_id)
    assert again.replayed
    assert again.recharge == first.recharge
    assert await acme.remaining() == {"prepaid": 100}


async def test_the_same_report_sent_at_once_through_two_servers_pays_once(caller: Caller) -> None:
    acme = await low(caller)
    requested = await acme.open()
    async with beside(caller) as second:
        theirs = Recharging(second)
        answers = await asyncio.gather(*(one.paid(requested.recharge_id) for one in (acme, theirs) for _ in range(5)))
    assert [answer.replayed for answer in answers].count(False) == 1
    assert {answer.recharge.state for answer in answers} == {PAID}
    assert await acme.remaining() == {"prepaid": 100}


async def test_another_amount_can_be_paid_into_another_segment(caller: Caller, clock: ManualClock) -> None:
    acme = Recharging(caller)
    now = clock.now()
    await acme.put("prepaid", spans=[("1", now - DAY, now + DAY), ("2", now - DAY, now + 9 * DAY), ("3", now, None)])
    await acme.put_policy(amount="50", max_count_per_period=2)
    first = await acme.open()
    await acme.paid(first.recharge_id, amount="5", segment_number=1)
    second = await acme.open()
    await acme.paid(second.recharge_id)
    granted = {key[1]: part.granted for key, part in (await acme.segments()).items()}
    assert granted == {1: "6", 2: "2", 3: "53"}  # by default the segment that ends last


async def test_failures_in_a_row_switch_the_policy_off_until_it_is_enabled(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await low(caller, max_attempts=2)
    first = await acme.open()
    answer = await acme.failed(first.recharge_id, failure_message="card declined")
    assert (answer.recharge.state, answer.recharge.failed.failure_message) == (FAILED, "card declined")
    assert (answer.recharge_policy.state, answer.recharge_policy.failed_attempts) == (ENABLED, 1)
    assert answer.recharge_policy.wait_reason == recharge_pb2.RECHARGE_WAIT_REASON_COOLDOWN
    clock.advance(HOUR)
    await work_off(timers_of(database, clock), database, clock)
    second = await acme.open()
    assert (second.sequence, second.attempt) == (2, 2)
    answer = await acme.failed(second.recharge_id)
    policy = answer.recharge_policy
    assert (policy.state, policy.failed_attempts, policy.wait_reason) == (DISABLED, 2, 0)
    assert policy.disabled_reason == recharge_pb2.RECHARGE_POLICY_DISABLED_REASON_ATTEMPTS_FAILED
    assert to_datetime(policy.disable_time) == clock.now()
    await acme.spend("e1", "5")
    clock.advance(DAY)
    await work_off(timers_of(database, clock), database, clock)
    assert await acme.recharges(REQUESTED) == []
    assert (await acme.put_policy(max_attempts=5)).state == DISABLED  # a put does not switch it on
    policy = await acme.enable_policy()
    assert (policy.state, policy.failed_attempts, policy.disabled_reason) == (ENABLED, 0, 0)
    third = await acme.open()
    assert (third.sequence, third.attempt, third.amount) == (3, 1, "95")
    assert await acme.enable_policy() == await acme.get_policy()  # again: nothing changes
    assert await acme.notified_recharges() == sorted(
        [
            ("requested", first.recharge_id),
            ("requested", second.recharge_id),
            ("policy_disabled", "ATTEMPTS_FAILED"),
            ("requested", third.recharge_id),
        ]
    )


async def test_a_payment_sets_the_number_of_failures_back(caller: Caller) -> None:
    acme = await low(caller, max_attempts=2, failure_cooldown=NO_COOLDOWN)
    for _ in range(3):
        await acme.failed((await acme.open()).recharge_id)
        await acme.paid((await acme.open()).recharge_id)
        await acme.adjust("prepaid", "-90", adjustment_id=f"a{len(await acme.recharges())}")
    assert (await acme.get_policy()).state == ENABLED
    assert [one.attempt for one in await acme.recharges()] == [1, 2, 1, 2, 1, 2, 1]


async def test_a_permanent_failure_switches_the_policy_off_at_once(caller: Caller) -> None:
    acme = await low(caller)
    answer = await acme.failed((await acme.open()).recharge_id, permanent=True)
    assert answer.recharge_policy.state == DISABLED
    assert answer.recharge_policy.disabled_reason == recharge_pb2.RECHARGE_POLICY_DISABLED_REASON_PERMANENT_FAILURE
    assert ("policy_disabled", "PERMANENT_FAILURE") in await acme.notified_recharges()
    asked = alert_service_pb2.ListNotificationsRequest(
        event_types=[event_type_pb2.EVENT_TYPE_RECHARGE_POLICY_DISABLED]
    )
    [shown] = (await caller.alerts.ListNotifications(asked, metadata=caller.metadata)).notifications
    assert shown.recharge_policy_disabled == notification_pb2.RechargePolicyDisabled(
        balance_id="prepaid",
        reason=recharge_pb2.RECHARGE_POLICY_DISABLED_REASON_PERMANENT_FAILURE,
        failed_attempts=1,
        max_attempts=3,
        last_recharge_id=answer.recharge.recharge_id,
    )


async def test_a_recharge_that_is_not_reported_expires_and_counts_as_failed(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await low(caller, max_attempts=2, report_timeout=HOUR, failure_cooldown=NO_COOLDOWN)
    first = await acme.open()
    clock.advance(HOUR - timedelta(microseconds=1))
    await work_off(timers_of(database, clock), database, clock)
    assert (await acme.open()).recharge_id == first.recharge_id
    clock.advance(timedelta(microseconds=1))
    await work_off(timers_of(database, clock), database, clock)
    second = await acme.open()
    assert second.attempt == 2
    expired = await acme.get(first.recharge_id)
    assert (expired.state, to_datetime(expired.end_time)) == (EXPIRED, clock.now())
    clock.advance(HOUR)
    await work_off(timers_of(database, clock), database, clock)
    assert (await acme.get_policy()).state == DISABLED
    assert await acme.notified_recharges() == sorted(
        [
            ("requested", first.recharge_id),
            ("expired", first.recharge_id),
            ("requested", second.recharge_id),
            ("expired", second.recharge_id),
            ("policy_disabled", "ATTEMPTS_FAILED"),
        ]
    )


async def test_a_late_payment_is_taken_and_leaves_the_newer_recharge_open(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await low(caller, report_timeout=HOUR, failure_cooldown=NO_COOLDOWN)
    first = await acme.open()
    clock.advance(HOUR)
    await work_off(timers_of(database, clock), database, clock)
    second = await acme.open()
    answer = await acme.paid(first.recharge_id)
    assert answer.recharge.state == PAID
    assert to_datetime(answer.recharge.end_time) == clock.now()
    assert (answer.recharge_policy.open_recharge_id, answer.recharge_policy.failed_attempts) == (
        second.recharge_id,
        0,
    )
    assert await acme.remaining() == {"prepaid": 100}
    assert (await acme.paid(first.recharge_id)).replayed


async def test_a_deleted_policy_cancels_its_open_recharge_which_can_still_be_paid(
    caller: Caller, clock: ManualClock, database: Database
) -> None:
    acme = await low(caller)
    requested = await acme.open()
    await acme.delete_policy()
    canceled = await acme.get(requested.recharge_id)
    assert canceled.state == CANCELED
    assert canceled.cancel_reason == recharge_pb2.RECHARGE_CANCEL_REASON_POLICY_DELETED
    code, reason, _ = await refusal(acme.get_policy())
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_RECHARGE_POLICY_NOT_FOUND")
    await acme.spend("e1", "1")
    clock.advance(30 * DAY)
    await work_off(timers_of(database, clock), database, clock)
    assert await acme.amounts() == ["90"]
    answer = await acme.paid(requested.recharge_id)
    assert answer.recharge.state == PAID
    assert not answer.HasField("recharge_policy")
    assert await acme.remaining() == {"prepaid": 99}
    assert await acme.notified_recharges() == sorted(
        [
            ("requested", requested.recharge_id),
            ("canceled", requested.recharge_id),
        ]
    )
    await acme.adjust("prepaid", "-90")
    await acme.put_policy()
    assert (await acme.open()).recharge_id != requested.recharge_id  # a policy of its own, with ids of its own
    [[noted]] = await caller.rows(
        "SELECT has_recharge_policy FROM wallet WHERE organization_id = %(organization_id)s AND customer_id = 'acme'"
    )
    assert noted


async def test_a_voided_balance_ends_its_policy_and_cancels_its_recharge(caller: Caller) -> None:
    acme = await low(caller)
    requested = await acme.open()
    await acme.void("prepaid")
    policy = await acme.get_policy()
    assert (policy.state, policy.open_recharge_id) == (DISABLED, "")
    assert policy.disabled_reason == recharge_pb2.RECHARGE_POLICY_DISABLED_REASON_BALANCE_VOIDED
    assert (await acme.get(requested.recharge_id)).state == CANCELED
    for call in (acme.paid(requested.recharge_id), acme.put_policy(), acme.enable_policy()):
        code, reason, _ = await refusal(call)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_BALANCE_VOIDED")
    assert (await acme.failed(requested.recharge_id)).recharge.state == FAILED
    assert await acme.notified_recharges() == sorted(
        [
            ("canceled", requested.recharge_id),
            ("policy_disabled", "BALANCE_VOIDED"),
            ("requested", requested.recharge_id),
        ]
    )


async def test_a_payment_without_an_active_segment_is_refused_and_stays_open(
    caller: Caller, clock: ManualClock
) -> None:
    acme = Recharging(caller)
    now = clock.now()
    await acme.put("prepaid", spans=[("10", now - DAY, now + HOUR)])
    await acme.put_policy()
    requested = await acme.open()
    clock.advance(HOUR)
    code, reason, _ = await refusal(acme.paid(requested.recharge_id))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_NO_ACTIVE_SEGMENT")
    assert (await acme.open()).recharge_id == requested.recharge_id
    await acme.put("prepaid", spans=[("10", now - DAY, now + HOUR), ("0", now, None)])
    await acme.paid(requested.recharge_id)
    assert await acme.remaining() == {"prepaid": 90}
