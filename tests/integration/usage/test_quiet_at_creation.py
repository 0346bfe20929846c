"""New alerts of customers that have nothing to report yet: they are evaluated at their creation, without a backfill.

Backfills are held back, so that only the creation can have evaluated an alert.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.changes.groups import ChangeGroups
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    customer_pb2,
    limit_pb2,
    metric_pb2,
    threshold_pb2,
)
from tests.support.postgres.only_one_server import quiet_puts
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    DEADLINE,
    Caller,
    ShortTransition,
    beside,
    ingest_held,
    on_customer,
    on_plan,
    shortened,
    spend_alert,
    until,
    usage_alert,
    waiting_for_locks,
)
from tests.support.usage.held_backfills import HeldBackfills
from tests.support.usage.held_evaluations import evaluations_held

DONE, EVALUATING = alert_pb2.EVALUATION_STATUS_DONE, alert_pb2.EVALUATION_STATUS_EVALUATING
OF_ACME = on_customer("acme")


@pytest.fixture(autouse=True)
def held(held_backfills: HeldBackfills) -> HeldBackfills:
    """Backfills begin when they are released."""
    return held_backfills


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """Another server of the same organization."""
    async with beside(caller) as second:
        yield second


async def watched(caller: Caller, quantity: str = "7", customer: str = "acme") -> None:
    """Has an alert of all customers watch usage, and sends an event."""
    await caller.create_only(usage_alert("1000"))
    await caller.send(caller.event("first", quantity, customer))


async def released(caller: Caller, held: HeldBackfills, *alerts: alert_pb2.Alert) -> None:
    """Releases the backfills, and waits for those of alerts."""
    held.release()
    await caller.create_only(usage_alert("1000000"))  # wakes them
    for alert in alerts:
        await caller.backfilled(alert.alert_id)


async def notified(caller: Caller, alert: alert_pb2.Alert) -> list[list[ShortTransition]]:
    return [one.transitions for one in await caller.evaluations() if one.alert_id == alert.alert_id]


@quiet_puts
@pytest.mark.parametrize("evaluate", [True, False])
async def test_alert_above_the_gauge_is_evaluated_at_its_creation_and_notifies_when_usage_reaches_it(
    caller: Caller, evaluate: bool
) -> None:
    await watched(caller, "7")
    alert = await caller.create_only(usage_alert("20", "10", scope=OF_ACME), evaluate=evaluate)
    assert alert.evaluation_status == DONE
    assert not (await caller.send(caller.event("e1", "2"))).transitions
    reached = [ShortTransition("REACHED", "10", "9", "10", "e2")]
    assert shortened((await caller.send(caller.event("e2", "1"))).transitions) == reached
    assert await notified(caller, alert) == [reached]


@pytest.mark.parametrize("level", ["7", "6", "0"])
async def test_alert_that_the_gauge_has_reached_waits_for_its_backfill(
    caller: Caller, held: HeldBackfills, level: str
) -> None:
    await watched(caller, "7")
    alert = await caller.create_only(usage_alert(level, "100", scope=OF_ACME))
    assert alert.evaluation_status == EVALUATING
    await released(caller, held, alert)
    assert await notified(caller, alert) == [[ShortTransition("REACHED", level, "7", "7", "")]]


async def test_alert_of_an_unknown_customer_is_evaluated_at_its_creation(caller: Caller) -> None:
    alerts = [
        await caller.create_only(usage_alert("5", scope=OF_ACME)),
        await caller.create_only(usage_alert("5", scope=OF_ACME, groups=[("region", None)])),
        await caller.create_only(spend_alert("5", scope=OF_ACME), evaluate=False),
    ]
    assert [one.evaluation_status for one in alerts] == [DONE] * 3
    answer = await caller.send(caller.event("e1", "5", cost="5", currency="USD", region="eu"))
    assert sorted(shortened(answer.transitions)) == [ShortTransition("REACHED", "5", "0", "5", "e1")] * 3


async def test_alert_on_usage_that_nothing_watched_waits_for_its_backfill(
    caller: Caller, held: HeldBackfills
) -> None:
    await caller.create_only(usage_alert("1000", metric="other"))
    await caller.send(caller.event("e1", "7"))
    alert = await caller.create_only(usage_alert("6", scope=OF_ACME))
    assert alert.evaluation_status == EVALUATING
    await released(caller, held, alert)
    assert await notified(caller, alert) == [[ShortTransition("REACHED", "6", "7", "7", "")]]


@quiet_puts
async def test_second_alert_of_a_customer_is_evaluated_at_its_creation_without_wide_alerts(caller: Caller) -> None:
    first = await caller.create_only(usage_alert("10", scope=OF_ACME))
    await caller.send(caller.event("e1", "7"))
    second = await caller.create_only(usage_alert("20", scope=OF_ACME))
    assert [first.evaluation_status, second.evaluation_status] == [DONE, DONE]
    answer = await caller.send(caller.event("e2", "20"))
    assert sorted(shortened(answer.transitions)) == [
        ShortTransition("REACHED", "10", "7", "27", "e2"),
        ShortTransition("REACHED", "20", "7", "27", "e2"),
    ]


async def test_gauge_that_was_not_watched_for_a_time_is_counted_anew(caller: Caller, held: HeldBackfills) -> None:
    first = await caller.create_only(usage_alert("10", scope=OF_ACME))
    await caller.send(caller.event("e1", "7"))
    await caller.archive(first.alert_id)
    await caller.send(caller.event("e2", "30"))
    second = await caller.create_only(usage_alert("20", scope=OF_ACME))
    assert second.evaluation_status == EVALUATING
    await released(caller, held, second)
    assert await notified(caller, second) == [[ShortTransition("REACHED", "20", "37", "37", "")]]


async def test_new_alert_does_not_hide_that_an_earlier_one_is_reached(caller: Caller, held: HeldBackfills) -> None:
    await watched(caller, "7")
    reached = await caller.create_only(usage_alert("5", scope=OF_ACME))
    quiet = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert [reached.evaluation_status, quiet.evaluation_status] == [EVALUATING, EVALUATING]
    await released(caller, held, reached, quiet)
    assert await notified(caller, reached) == [[ShortTransition("REACHED", "5", "7", "7", "")]]


@pytest.mark.parametrize("scope", ["all", "plan"])
async def test_new_alert_does_not_hide_that_a_wide_one_of_another_server_is_reached(
    caller: Caller, other: Caller, held: HeldBackfills, scope: str
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="pro"))
    await watched(caller, "7")
    wide = usage_alert("5") if scope == "all" else usage_alert("5", scope=on_plan("pro"))
    reached = await other.create_only(wide)
    quiet = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert quiet.evaluation_status == EVALUATING
    await released(caller, held, reached, quiet)
    assert await notified(caller, reached) == [[ShortTransition("REACHED", "5", "7", "7", "")]]


@pytest.mark.parametrize("scope", ["all", "plan"])
async def test_new_alert_does_not_hide_that_a_wide_one_is_reached_after_the_server_has_read_that(
    caller: Caller, held: HeldBackfills, scope: str
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="pro"))
    await watched(caller, "7")
    reached = await caller.create_only(usage_alert("5", scope=ALL_CUSTOMERS if scope == "all" else on_plan("pro")))
    await caller.send(caller.event("e1", "1", "beta"))
    quiet = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert quiet.evaluation_status == EVALUATING
    await released(caller, held, reached, quiet)
    assert await notified(caller, reached) == [[ShortTransition("REACHED", "5", "7", "7", "")]]


async def test_edit_of_an_earlier_alert_is_evaluated_after_a_new_alert(caller: Caller, held: HeldBackfills) -> None:
    await watched(caller, "7")
    first = await caller.create_only(usage_alert("50", scope=OF_ACME))
    first.ClearField("thresholds")
    first.thresholds.append(threshold_pb2.Threshold(value="6"))
    request = alert_service_pb2.UpdateAlertRequest(alert=first)
    request.update_mask.paths.append("thresholds")
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata, timeout=DEADLINE)
    second = await caller.create_only(usage_alert("60", scope=OF_ACME))
    assert second.evaluation_status == EVALUATING
    await released(caller, held, first, second)
    assert await notified(caller, first) == [[ShortTransition("REACHED", "6", "7", "7", "")]]


@quiet_puts
async def test_alerts_of_a_batch_are_evaluated_together_or_not_at_all_for_a_customer(
    caller: Caller, held: HeldBackfills
) -> None:
    await watched(caller, "7")
    await caller.send(caller.event("e1", "7", "beta"), caller.event("e2", "7", "gamma"))
    wanted = [
        usage_alert("20", scope=OF_ACME),
        usage_alert("10", scope=OF_ACME),
        usage_alert("20", scope=on_customer("beta")),
        usage_alert("5", scope=on_customer("beta")),
        usage_alert("20", scope=on_customer("gamma")),
        usage_alert("20", scope=on_customer("gamma"), groups=[("region", None)]),
    ]
    answer = await caller.alerts.BatchCreateAlerts(
        alert_service_pb2.BatchCreateAlertsRequest(
            requests=[alert_service_pb2.CreateAlertRequest(alert=one) for one in wanted]
        ),
        metadata=caller.metadata,
        timeout=DEADLINE,
    )
    assert [one.evaluation_status for one in answer.alerts] == [DONE] * 2 + [EVALUATING] * 4
    reached = ShortTransition("REACHED", "10", "7", "12", "e3")
    assert shortened((await caller.send(caller.event("e3", "5"))).transitions) == [reached]
    await released(caller, held, *answer.alerts)
    assert await notified(caller, answer.alerts[3]) == [[ShortTransition("REACHED", "5", "7", "7", "")]]


async def test_wide_and_other_alerts_of_one_batch_wait_for_their_backfills(
    caller: Caller, held: HeldBackfills
) -> None:
    await watched(caller, "7")
    wanted = [usage_alert("5"), usage_alert("20", scope=OF_ACME)]
    answer = await caller.alerts.BatchCreateAlerts(
        alert_service_pb2.BatchCreateAlertsRequest(
            requests=[alert_service_pb2.CreateAlertRequest(alert=one) for one in wanted]
        ),
        metadata=caller.metadata,
        timeout=DEADLINE,
    )
    assert [one.evaluation_status for one in answer.alerts] == [EVALUATING] * 2
    await released(caller, held, *answer.alerts)
    assert await notified(caller, answer.alerts[0]) == [[ShortTransition("REACHED", "5", "7", "7", "")]]


@quiet_puts
@pytest.mark.parametrize("scope", ["all", "own"])
@pytest.mark.parametrize("limited", ["customer", "plan"])
async def test_new_alert_does_not_hide_that_a_changed_limit_is_reached(
    caller: Caller, held: HeldBackfills, limited: str, scope: str
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="pro"))
    await watched(caller, "7")
    share = threshold_pb2.Threshold(percent_of_limit="50")
    of_share = await caller.create_only(
        usage_alert(thresholds=[share]) if scope == "all" else usage_alert(thresholds=[share], scope=OF_ACME)
    )
    assert of_share.evaluation_status == EVALUATING
    await caller.send(caller.event("e1", "1"))
    unchanged = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert unchanged.evaluation_status == DONE
    limit = limit_pb2.Limit(limit_id="calls", quantity=access_pb2.QuantityAccess(metric_id="calls"), amount="10")
    if limited == "customer":
        limit.customer.customer_id = "acme"
    else:
        limit.plan.plan_id = "pro"
    request = account_service_pb2.PutLimitRequest(limit=limit)
    with evaluations_held():
        await caller.accounts.PutLimit(request, metadata=caller.metadata, timeout=DEADLINE)
        quiet = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert quiet.evaluation_status == EVALUATING
    await released(caller, held, of_share, quiet)
    await caller.accounts.PutLimit(request, metadata=caller.metadata, timeout=DEADLINE)  # evaluates what is noted
    assert await notified(caller, of_share) == [[ShortTransition("REACHED", "5", "8", "8", "")]]


@quiet_puts
async def test_changed_customer_is_evaluated_anew_before_its_new_alert(caller: Caller, held: HeldBackfills) -> None:
    await watched(caller, "7")
    plan = await caller.create_only(usage_alert("5", scope=on_plan("pro")))
    await caller.send(caller.event("e1", "1", "beta"))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="pro"))
    assert await notified(caller, plan) == [[ShortTransition("REACHED", "5", "7", "7", "")]]
    alert = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert alert.evaluation_status == DONE
    reached = [ShortTransition("REACHED", "50", "7", "57", "e2")]
    assert shortened((await caller.send(caller.event("e2", "50"))).transitions) == reached


async def test_alert_of_a_metric_that_counts_raw_events_waits_for_its_backfill(
    caller: Caller, held: HeldBackfills
) -> None:
    metric = metric_pb2.Metric(metric_id="calls", aggregation=metric_pb2.AGGREGATION_COUNT, event_name="call")
    request = account_service_pb2.PutMetricRequest(metric=metric)
    await caller.accounts.PutMetric(request, metadata=caller.metadata, timeout=DEADLINE)
    await watched(caller, "7")
    alert = await caller.create_only(usage_alert("50", scope=OF_ACME))
    assert alert.evaluation_status == EVALUATING
    await released(caller, held, alert)


async def test_alert_of_a_customer_with_an_exclusion_waits_for_its_backfill(
    caller: Caller, held: HeldBackfills
) -> None:
    first = await caller.create_only(usage_alert("10"))
    await caller.send(caller.event("e1", "7"))
    request = alert_service_pb2.DisableAlertRequest(alert_id=first.alert_id, customer_id="acme")
    await caller.alerts.DisableAlert(request, metadata=caller.metadata, timeout=DEADLINE)
    await caller.send(caller.event("e2", "30"))
    alert = await caller.create_only(usage_alert("20", scope=OF_ACME))
    assert alert.evaluation_status == EVALUATING
    await released(caller, held, alert)
    assert await notified(caller, alert) == [[ShortTransition("REACHED", "20", "37", "37", "")]]


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
async def test_creation_does_not_hide_an_edit_in_the_same_transaction(
    caller: Caller, held: HeldBackfills, batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched(caller, "7")
    first = await caller.create_only(usage_alert("50", scope=OF_ACME))
    edited = alert_pb2.Alert(alert_id=first.alert_id, thresholds=[threshold_pb2.Threshold(value="6")])
    edit = alert_service_pb2.UpdateAlertRequest(alert=edited)
    edit.update_mask.paths.append("thresholds")
    new = alert_service_pb2.CreateAlertRequest(alert=usage_alert("60", scope=OF_ACME))

    async def create() -> alert_pb2.Alert:
        if not batch:
            return (await caller.alerts.CreateAlert(new, metadata=caller.metadata, timeout=DEADLINE)).alert
        request = alert_service_pb2.BatchCreateAlertsRequest(requests=[new])
        return (await caller.alerts.BatchCreateAlerts(request, metadata=caller.metadata, timeout=DEADLINE)).alerts[0]

    async def update() -> None:
        await caller.alerts.UpdateAlert(edit, metadata=caller.metadata, timeout=DEADLINE)

    asked, made = list[object](), ChangeGroups._made

    async def noted(*change: Any) -> Any:
        asked.append(change)
        return await made(*change)

    async def asked_for(number: int) -> None:
        async def enough() -> bool:
            return len(asked) >= number

        await until(enough)

    monkeypatch.setattr(ChangeGroups, "_made", noted)
    async with ingest_held(caller):
        # The first change waits for the lock, and the two behind it share the transaction after it.
        ahead = asyncio.create_task(caller.create_only(usage_alert("1000", scope=on_customer("beta"))))
        await waiting_for_locks(caller)
        created = asyncio.create_task(create())
        await asked_for(2)
        updated = asyncio.create_task(update())
        await asked_for(3)
    await asyncio.gather(ahead, updated)
    second = await created
    await released(caller, held, first, second)
    assert await notified(caller, first) == [[ShortTransition("REACHED", "6", "7", "7", "")]]
    [[epochs]] = await caller.rows(
        "SELECT count(DISTINCT changed_epoch) FROM alert"
        " WHERE organization_id = %(organization_id)s AND customer_id = 'acme'"
    )
    assert epochs == 1
