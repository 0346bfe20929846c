"""Backfills pass over quiet gauges, which cannot reach a threshold, without evaluating them one by one."""

import pytest

from engine.backfill.steps import BackfillSteps
from engine.limits import BackfillLimits
from generated.tidemark.v1 import (
    alert_service_pb2,
    customer_alert_pb2,
    customer_pb2,
    threshold_pb2,
)
from store.alerts import backfills as stored_backfills
from tests.support.usage.backfill_workers import Workers, finish, notified, progress
from tests.support.usage.caller import Caller, on_customer, usage_alert
from tests.support.usage.percentages import put_limit
from tests.support.usage.refusing import refusing


async def test_alert_far_above_all_gauges_is_reached_by_later_usage(caller: Caller, workers: Workers) -> None:
    customers = [f"c{number:02}" for number in range(20)]
    first = await caller.create_only(usage_alert("7"))
    step = workers(BackfillLimits(customers_per_step=5))
    await finish(step)
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    before = await caller.rows("SELECT count(*) FROM gauge WHERE organization_id = %(organization_id)s")
    alert = await caller.create_only(usage_alert("6", "9"))
    await finish(step)
    assert await caller.rows("SELECT count(*) FROM gauge WHERE organization_id = %(organization_id)s") == before
    assert await caller.rows(
        "SELECT DISTINCT trip_above::text FROM gauge WHERE organization_id = %(organization_id)s"
    ) == [("6",)]
    assert not await caller.notifications()
    for customer in customers:
        answer = await caller.send(caller.event("later", "2", customer))
        assert sorted((one.alert_id, one.level) for one in answer.transitions) == sorted(
            [(alert.alert_id, "6"), (first.alert_id, "7")]
        )
        state = await caller.state(alert.alert_id, customer)
        assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM


async def test_gauges_that_are_not_quiet_are_evaluated_one_by_one(caller: Caller, workers: Workers) -> None:
    """Reached gauges, states of the alert, exclusions, changed customers, and changed alerts of the customer."""
    customers = [f"c{number:02}" for number in range(12)]
    step = workers(BackfillLimits(customers_per_step=5))
    wide = await caller.create_only(usage_alert("10"))
    await finish(step)
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    await caller.send(caller.event("more", "10", "c01"), caller.event("most", "20", "c02"))
    assert await notified(caller, wide) == ["c01", "c02"]
    own = await caller.create_only(usage_alert("4", scope=on_customer("c03")))
    await caller.put_customer(customer_pb2.Customer(customer_id="c04", plan_id="pro"))
    disable = alert_service_pb2.DisableAlertRequest(alert_id=wide.alert_id, customer_id="c05")
    await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    # Raised above c01 and below c02: c01 resolves.
    request = alert_service_pb2.UpdateAlertRequest(alert=wide)
    request.alert.thresholds[0].value = "17"
    request.update_mask.paths.append("thresholds")
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    second = await caller.create_only(usage_alert("25"))
    await finish(step)
    assert await progress(caller) == [None, None, None]
    assert await notified(caller, own) == ["c03"]
    assert await notified(caller, second) == ["c02"]
    assert (await caller.state(wide.alert_id, "c01")).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    assert (await caller.state(wide.alert_id, "c02")).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    answer = await caller.send(*(caller.event("later", "12", customer) for customer in customers))
    reached = sorted((one.gauge.customer_id, one.level) for one in answer.transitions)
    assert reached == sorted([(one, "17") for one in customers if one not in ("c02", "c05")] + [("c01", "25")])


@pytest.mark.parametrize("limited", ["customer", "plan", "plan later"])
async def test_backfill_reaches_a_share_of_a_limit_that_is_below_the_other_thresholds(
    caller: Caller, workers: Workers, limited: str
) -> None:
    customers = [f"c{number:02}" for number in range(6)]
    for customer in customers[:2]:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer, plan_id="pro"))
    step = workers(BackfillLimits())
    await caller.create_only(usage_alert("1000"))
    await finish(step)
    if limited == "customer":
        for customer in customers[:2]:
            await put_limit(caller, "10", customer=customer)
    elif limited == "plan":
        await put_limit(caller, "10", plan="pro")
    await caller.send(*(caller.event("e", "8", customer) for customer in customers))
    both = [threshold_pb2.Threshold(value="50"), threshold_pb2.Threshold(percent_of_limit="50")]
    alert = await caller.create_only(usage_alert(thresholds=both))
    await finish(step)
    if limited == "plan later":
        assert not await notified(caller, alert)
        await put_limit(caller, "10", plan="pro")
        await finish(step)
    assert await notified(caller, alert) == customers[:2]


async def test_alert_that_is_lowered_between_quiet_gauges_and_the_others_reaches_the_quiet_ones(
    caller: Caller, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change waits for the transaction of the quiet gauges, and comes before that of the others."""
    customers = [f"c{number:02}" for number in range(6)]
    step = workers(BackfillLimits())
    await caller.create_only(usage_alert("100"))
    await finish(step)
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    alert = await caller.create_only(usage_alert("50"))
    settle, changed = BackfillSteps._settle, list[str]()

    async def change_after(steps: BackfillSteps, backfill: stored_backfills.Backfill) -> object:
        settled = await settle(steps, backfill)
        if not changed:
            changed.append(backfill.alert_id)
            request = alert_service_pb2.UpdateAlertRequest(alert=alert)
            request.alert.thresholds[0].value = "4"
            request.update_mask.paths.append("thresholds")
            await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
        return settled

    monkeypatch.setattr(BackfillSteps, "_settle", change_after)
    await finish(step)
    assert changed == [alert.alert_id]
    assert await progress(caller) == [None, None]
    assert await notified(caller, alert) == customers


async def test_customer_that_one_server_has_passed_over_is_tried_again_by_another(
    caller: Caller, workers: Workers
) -> None:
    customers = [f"c{number:02}" for number in range(8)]
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    alert = await caller.create_only(usage_alert("5"))
    one_by_one = BackfillLimits(customers_per_step=1)
    async with refusing(caller, "notification", "customer_id = 'c03'"):
        step = workers(one_by_one)
        for _ in range(5):
            await step()
        assert await notified(caller, alert) == ["c00", "c01", "c02", "c04"]
        await finish(workers(one_by_one))  # after a restart, or another server
        assert await notified(caller, alert) == [one for one in customers if one != "c03"]
    await finish(workers(one_by_one))
    assert await progress(caller) == [None]
    assert await notified(caller, alert) == customers


async def test_customer_that_cannot_be_evaluated_is_named_although_those_before_it_are_quiet(
    caller: Caller, workers: Workers
) -> None:
    customers = [f"c{number:02}" for number in range(8)]
    step = workers(BackfillLimits(first_size=1))
    await caller.create_only(usage_alert("100"))
    await finish(step)
    await caller.send(*(caller.event("e", "9" if name == "c05" else "1", name) for name in customers))
    alert = await caller.create_only(usage_alert("8"))
    async with refusing(caller, "notification", "customer_id = 'c05'"):
        await finish(step)
        rows = await caller.rows("SELECT body::text FROM operator_event WHERE organization_id = %(organization_id)s")
        assert len(rows) == 1
        assert "c05" in rows[0][0]
    await finish(step)
    assert await notified(caller, alert) == ["c05"]
