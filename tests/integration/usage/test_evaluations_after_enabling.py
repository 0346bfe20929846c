"""An alert that is enabled for a customer is evaluated for it, also when the process that enabled it has ended."""

from datetime import timedelta

import pytest

from generated.tidemark.v1 import (
    alert_service_pb2,
    condition_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.accounts.customer_evaluations import OWN_TIME
from tests.support.balances.holder import alert
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    Caller,
    beside,
    usage_alert,
)
from tests.support.usage.changed_customers import GOLD, evaluated, notified, on_gold
from tests.support.usage.held_evaluations import NOTED, evaluations_held, ids

pytestmark = shares_server

DAY = timedelta(days=1)


async def switch(caller: Caller, alert_id: str, *, enabled: bool) -> None:
    """Enables an alert for the customer acme, or disables it."""
    if enabled:
        on = alert_service_pb2.EnableAlertRequest(alert_id=alert_id, customer_id="acme")
        await caller.alerts.EnableAlert(on, metadata=caller.metadata)
    else:
        off = alert_service_pb2.DisableAlertRequest(alert_id=alert_id, customer_id="acme")
        await caller.alerts.DisableAlert(off, metadata=caller.metadata)


@own_server
@pytest.mark.parametrize("repeated", [False, True])
async def test_alert_enabled_for_a_customer_is_evaluated_although_its_process_ended(
    caller: Caller, clock: ManualClock, repeated: bool
) -> None:
    """Another server evaluates it, or a repeated call, at once. The customer's other alerts do not change."""
    created = await caller.create(usage_alert("10"))
    await caller.create(usage_alert("10", metric="other"))
    await switch(caller, created.alert_id, enabled=False)
    await caller.send(caller.event("e1", "15"))
    with evaluations_held():
        await switch(caller, created.alert_id, enabled=True)
    assert ids(await caller.rows(NOTED)) == ["acme"]
    assert await notified(caller) == []
    if repeated:
        await switch(caller, created.alert_id, enabled=True)
        assert not await caller.rows(NOTED)
    else:
        clock.set(clock.now() + OWN_TIME)
        async with beside(caller):
            await evaluated(caller)
    assert await notified(caller) == [(created.alert_id, "alert.reached")]


@own_server
async def test_alert_on_facts_enabled_for_a_customer_is_evaluated_although_its_process_ended(
    caller: Caller, clock: ManualClock
) -> None:
    condition = condition_pb2.LowRemainingDaysInPlanReachedCondition()
    created = await caller.create(alert("7", low_remaining_days_in_plan_reached=condition))
    await switch(caller, created.alert_id, enabled=False)
    await caller.put_customer(on_gold(plan_end_time=to_timestamp(clock.now() + 3 * DAY)))
    with evaluations_held():
        await switch(caller, created.alert_id, enabled=True)
    assert await notified(caller) == []
    clock.set(clock.now() + OWN_TIME)
    async with beside(caller):
        await evaluated(caller)
    assert await notified(caller) == [(created.alert_id, "alert.reached")]


@own_server
async def test_alert_enabled_beside_a_put_that_waits_loses_neither_evaluation(
    caller: Caller, clock: ManualClock
) -> None:
    enabled = await caller.create(usage_alert("10"))
    of_plan = await caller.create(usage_alert("12", scope=GOLD))
    await switch(caller, enabled.alert_id, enabled=False)
    await caller.send(caller.event("e1", "15"))
    with evaluations_held():
        await caller.put_customer(on_gold())
    await switch(caller, enabled.alert_id, enabled=True)
    assert await notified(caller) == sorted((one.alert_id, "alert.reached") for one in (enabled, of_plan))
    assert not await caller.rows(NOTED)


@own_server
async def test_alert_disabled_again_before_its_evaluation_notifies_nothing(caller: Caller) -> None:
    created = await caller.create(usage_alert("10"))
    await switch(caller, created.alert_id, enabled=False)
    await caller.send(caller.event("e1", "15"))
    with evaluations_held():
        await switch(caller, created.alert_id, enabled=True)
        await switch(caller, created.alert_id, enabled=False)
    await caller.put_customer(on_gold())
    assert await notified(caller) == []
    assert not await caller.rows(NOTED)


async def test_validated_enabling_evaluates_nothing(caller: Caller) -> None:
    created = await caller.create(usage_alert("10"))
    await switch(caller, created.alert_id, enabled=False)
    await caller.send(caller.event("e1", "15"))
    request = alert_service_pb2.EnableAlertRequest(alert_id=created.alert_id, customer_id="acme", validate_only=True)
    await caller.alerts.EnableAlert(request, metadata=caller.metadata)
    assert await notified(caller) == []
    assert not await caller.rows(NOTED)
