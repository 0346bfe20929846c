"""Alerts without a value: they have no data and do not affect other alerts."""

from datetime import UTC, datetime

from generated.tidemark.v1 import (
    alert_pb2,
    customer_alert_pb2,
    customer_pb2,
    subscription_pb2,
)
from runtime.clock import ManualClock
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    Caller,
    ShortTransition,
    on_plan,
    shortened,
    spend_alert,
    thresholds,
    usage_alert,
)

pytestmark = shares_server

OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK


async def test_alert_on_an_unknown_metric_has_no_data_and_does_not_affect_other_alerts(caller: Caller) -> None:
    unknown = await caller.create(usage_alert("0", metric="unknown-metric"))
    known = await caller.create(usage_alert("10"))
    answer = await caller.send(caller.event("e1", "12"))
    assert [one.alert_id for one in answer.transitions] == [known.alert_id]
    state = await caller.state(unknown.alert_id)
    assert (state.status, state.no_data, list(state.gauges)) == (OK, True, [])
    # The metric may be unknown when the alert is created: its first event starts the gauge.
    first = await caller.send(caller.event("e2", "1", metric="unknown-metric"))
    assert shortened(first.transitions) == [ShortTransition("REACHED", "0", "0", "1", "e2")]
    assert not (await caller.state(unknown.alert_id)).no_data


@own_server
async def test_alert_on_a_metric_that_is_no_longer_used_has_no_data_in_the_next_period(
    caller: Caller, clock: ManualClock
) -> None:
    alert = await caller.create(usage_alert("10", metric="old"))
    await caller.create(usage_alert("10", metric="new"))
    await caller.send(caller.event("e1", "15", metric="old"))
    clock.set(datetime(2026, 4, 2, tzinfo=UTC))
    answer = await caller.send(caller.event("e2", "15", metric="new"))
    assert [one.event_id for one in answer.transitions] == ["e2"]
    state = await caller.state(alert.alert_id)
    assert (state.status, state.no_data) == (OK, True)
    assert len(await caller.notifications()) == 2


async def test_alert_on_a_metric_that_is_not_on_the_plan_has_no_data(caller: Caller) -> None:
    plan = on_plan("gold")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="main", plan_id="gold")
    )
    other = alert_pb2.Alert(display_name="other", scope=plan, thresholds=thresholds("10"))
    other.usage_exceeded.metric_id = "seats"
    absent = [await caller.create(usage_alert("10", metric="seats", scope=plan)), await caller.create(other)]
    present = await caller.create(usage_alert("10", scope=plan))
    answer = await caller.send(
        caller.event("e1", "12", subscription="main"), caller.event("e2", "50", "elsewhere", metric="seats")
    )
    assert [one.alert_id for one in answer.transitions] == [present.alert_id]
    for alert in absent:
        state = await caller.state(alert.alert_id)
        assert (state.status, state.no_data) == (OK, True)


async def test_alert_in_a_currency_that_is_not_used_has_no_data(caller: Caller) -> None:
    dollars, euros = await caller.create(spend_alert("10")), await caller.create(spend_alert("10", currency="EUR"))
    answer = await caller.send(caller.event("e1", cost="50", currency="EUR"))
    assert [one.alert_id for one in answer.transitions] == [euros.alert_id]
    assert (await caller.state(dollars.alert_id)).no_data
    assert not (await caller.state(euros.alert_id)).no_data
