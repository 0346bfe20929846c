"""An update with RESET of an alert that does not cover the customer at that time."""

from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    customer_alert_pb2,
    customer_pb2,
    threshold_pb2,
)
from tests.support.usage.caller import BOTH, Caller, on_plan, usage_alert


async def test_threshold_forgotten_by_a_reset_notifies_again_when_the_customer_returns_to_the_plan(
    caller: Caller,
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    threshold = threshold_pb2.Threshold(value="5", notify_on=BOTH)
    alert = await caller.create(usage_alert(scope=on_plan("gold"), thresholds=[threshold]))
    await caller.send(caller.event("e1", "6"))
    assert (await caller.state(alert.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM

    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="silver"))
    reset = alert_service_pb2.UpdateAlertRequest(
        alert=alert_pb2.Alert(alert_id=alert.alert_id), state_policy=alert_service_pb2.STATE_POLICY_RESET
    )
    await caller.alerts.UpdateAlert(reset, metadata=caller.metadata)
    await caller.backfilled(alert.alert_id)
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    # The reset forgot that the threshold was reached: it notifies once more, with the next sequence number.
    assert (await caller.state(alert.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    assert [one.sequence for one in await caller.notifications()] == [1, 2]
