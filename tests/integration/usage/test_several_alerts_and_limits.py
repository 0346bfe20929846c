"""Several alerts on one gauge, and several limits of one customer: each applies independently."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    customer_pb2,
    limit_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from tests.support.balances.holder import Holder, alert
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import BOTH, Caller, ShortTransition, shortened, spend_alert, usage_alert

pytestmark = shares_server


def notifying_of_both(level: str) -> list[threshold_pb2.Threshold]:
    return [threshold_pb2.Threshold(value=level, notify_on=BOTH)]


@pytest.mark.parametrize("levels", [("10", "20"), ("20", "10")])
async def test_alerts_on_one_gauge_resolve_at_their_own_levels(caller: Caller, levels: tuple[str, str]) -> None:
    for level in levels:
        await caller.create(usage_alert(thresholds=notifying_of_both(level)))
    found = []
    for number, quantity in enumerate(("9", "2", "9", "1", "-2", "3", "-13")):
        answer = await caller.send(caller.event(f"e{number}", quantity))
        found += [(one.kind, one.level, one.value) for one in shortened(answer.transitions)]
    assert found[:4] == [
        ("REACHED", "10", "11"),
        ("REACHED", "20", "20"),
        ("RESOLVED", "20", "19"),
        ("REACHED", "20", "22"),
    ]
    assert sorted(found[4:]) == [("RESOLVED", "10", "9"), ("RESOLVED", "20", "9")]


@pytest.mark.parametrize("levels", [("10", "20"), ("20", "10")])
async def test_alerts_on_one_balance_are_reached_at_their_own_levels(caller: Caller, levels: tuple[str, str]) -> None:
    acme = Holder(caller)
    await acme.put("c1", "30")
    for level in levels:
        await caller.create(alert(level, low_remaining_commit_balance_reached={}))
    found = []
    for number, cost in enumerate(("9", "1", "9", "1", "-1", "-9", "-1")):
        found += [(one.kind, one.level, one.value) for one in await acme.spend(f"e{number}", cost)]
    assert found == [
        ("REACHED", "20", "20"),
        ("REACHED", "10", "10"),
        ("RESOLVED", "10", "11"),
        # At the level itself a falling threshold stays reached.
        ("RESOLVED", "20", "21"),
    ]


@own_server
async def test_state_evaluated_without_a_transition_keeps_its_change_time(caller: Caller, clock: ManualClock) -> None:
    first = await caller.create(usage_alert(thresholds=notifying_of_both("10")))
    second = await caller.create(usage_alert(thresholds=notifying_of_both("20")))
    start = clock.now()
    await caller.send(caller.event("e1", "15"))
    clock.advance(timedelta(hours=1))
    answer = await caller.send(caller.event("e2", "10"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "20", "15", "25", "e2")]
    rows = await caller.rows(
        "SELECT alert_id, change_time FROM alert_state WHERE organization_id = %(organization_id)s"
    )
    assert dict(rows) == {first.alert_id: start, second.alert_id: start + timedelta(hours=1)}


async def put_limit(caller: Caller, amount: str, *, plan: bool, currency: str = "") -> None:
    limit = limit_pb2.Limit(limit_id=f"limit in {currency or 'calls'}", amount=amount)
    if plan:
        limit.plan.plan_id = "gold"
    else:
        limit.customer.customer_id = "acme"
    if currency:
        limit.spend.currency = currency
    else:
        limit.quantity.metric_id = "calls"
    await caller.accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), metadata=caller.metadata)


@pytest.mark.parametrize("plan", [False, True], ids=["customer", "plan"])
async def test_spend_limit_leaves_the_limit_of_a_metric_unchanged(caller: Caller, plan: bool) -> None:
    """A server that has cached the customer reads one limit after the other."""
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    percent = [threshold_pb2.Threshold(percent_of_limit="50")]
    await caller.create(usage_alert(thresholds=percent))
    spend = spend_alert()
    spend.thresholds.extend(percent)
    await caller.create(spend)
    for number, limits in enumerate(([], [("20", "")], [("10", "USD")])):
        for amount, currency in limits:
            await put_limit(caller, amount, plan=plan, currency=currency)
        answer = await caller.send(caller.event(f"e{number}", "1", cost="1"), gauges=True)
        assert not answer.transitions
    answer = await caller.send(caller.event("e4", "7", cost="1"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "3", "10", "e4")]
    answer = await caller.send(caller.event("e5", "1", cost="1"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "5", "4", "5", "e5")]


async def test_customer_limit_of_0_takes_precedence_over_the_plan_limit(caller: Caller) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    await put_limit(caller, "10", plan=True)
    request = limit_pb2.Limit(limit_id="own", amount="0")
    request.customer.customer_id = "acme"
    request.quantity.metric_id = "calls"
    await caller.accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=request), metadata=caller.metadata)
    alert_made = await caller.create(usage_alert(thresholds=[threshold_pb2.Threshold(percent_of_limit="50")]))
    answer = await caller.send(caller.event("e1", "1"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "0", "0", "1", "e1")]
    [gauge] = (await caller.state(alert_made.alert_id)).gauges
    assert gauge.gauge.limit == "0"


async def test_thresholds_forgotten_by_a_reset_notify_again_once(caller: Caller) -> None:
    """States that the alert has recorded since the version with the reset are kept."""
    made = await caller.create(usage_alert("10", "20", "30"))
    first = await caller.send(caller.event("e1", "15"))
    made.display_name = "another name"
    request = alert_service_pb2.UpdateAlertRequest(
        alert=made, update_mask=FieldMask(paths=["display_name"]), state_policy=alert_service_pb2.STATE_POLICY_RESET
    )
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    await caller.backfilled(made.alert_id)
    assert len(await caller.notifications()) == 2
    found = [shortened(first.transitions)]
    for event_id in ("e2", "e3"):
        found.append(shortened((await caller.send(caller.event(event_id, "10"))).transitions))
    assert found == [
        [ShortTransition("REACHED", "10", "0", "15", "e1")],
        [ShortTransition("REACHED", "20", "15", "25", "e2")],
        [ShortTransition("REACHED", "30", "25", "35", "e3")],
    ]


@own_server
async def test_event_is_late_from_the_end_of_its_period(caller: Caller, clock: ManualClock) -> None:
    """An event that is received at the start of the next period is late, in the answer and in the notification."""
    await caller.create(usage_alert("10", "20"))
    end = datetime(2026, 4, 1, tzinfo=UTC)
    late = []
    for number, now in enumerate((end - timedelta.resolution, end)):
        clock.set(now)
        at = end - timedelta(hours=1)
        answer = await caller.send(caller.event(f"e{number}", "10", at=at))
        late += [one.late for one in answer.transitions]
    assert late == [False, True]
    assert [one.body["data"]["late"] for one in await caller.notifications()] == [False, True]
