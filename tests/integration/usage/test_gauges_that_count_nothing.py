"""Gauges that were evaluated and in which nothing counts: they show 0, and changed alerts are evaluated on that."""

from generated.tidemark.v1 import account_service_pb2, alert_pb2, alert_service_pb2, metric_pb2, threshold_pb2
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import BOTH, Caller, ShortTransition, usage_alert
from tests.support.usage.voiding import void

pytestmark = shares_server

ZERO_BY_THE_CHANGE = ShortTransition("REACHED", "0", "0", "0", "")


async def watched(caller: Caller) -> alert_pb2.Alert:
    """An alert on unique users, far above what the tests count."""
    metric = metric_pb2.Metric(
        metric_id="users", aggregation=metric_pb2.AGGREGATION_UNIQUE_COUNT, unique_property="user"
    )
    await caller.accounts.PutMetric(account_service_pb2.PutMetricRequest(metric=metric), metadata=caller.metadata)
    threshold = threshold_pb2.Threshold(value="5", notify_on=BOTH)
    return await caller.create(usage_alert(metric="users", thresholds=[threshold]))


async def lower_to_zero(caller: Caller, alert: alert_pb2.Alert) -> None:
    """Replaces the threshold of an alert, and waits until the alert is evaluated."""
    request = alert_service_pb2.UpdateAlertRequest(alert=alert)
    request.alert.thresholds[0].value = "0"
    request.update_mask.paths.append("thresholds")
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    await caller.backfilled(alert.alert_id)


async def transitions(caller: Caller) -> list[list[ShortTransition]]:
    return [one.transitions for one in await caller.notifications()]


async def test_events_without_the_counted_property_let_a_lowered_threshold_of_zero_be_reached(caller: Caller) -> None:
    alert = await watched(caller)
    await caller.send(caller.event("e1", metric="users"))
    await lower_to_zero(caller, alert)
    assert await transitions(caller) == [[ZERO_BY_THE_CHANGE]]
    await caller.send(caller.event("e2", metric="users"))
    assert await transitions(caller) == [[ZERO_BY_THE_CHANGE]]


async def test_gauge_whose_events_were_voided_reaches_a_lowered_threshold_of_zero_at_its_next_event(
    caller: Caller,
) -> None:
    alert = await watched(caller)
    await caller.send(caller.event("e1", metric="users", user="ann"))
    await void(caller, "e1")
    await lower_to_zero(caller, alert)
    assert await transitions(caller) == []
    await caller.send(caller.event("e2", metric="users", user="bob"))
    assert await transitions(caller) == [[ZERO_BY_THE_CHANGE]]
