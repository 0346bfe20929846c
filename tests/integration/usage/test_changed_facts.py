"""Facts that change within a period: time zones, plans, subscriptions that end and are recreated, late backfills."""

from datetime import timedelta

from engine.backfill.backfills import Backfills
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from generated.tidemark.v1 import (
    alert_pb2,
    customer_alert_pb2,
    customer_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import BOTH, Caller, ShortTransition, on_plan, on_subscription, shortened, usage_alert
from tests.support.usage.held_backfills import HeldBackfills
from tests.support.usage.periods import by_period, cycle, period_of, utc

pytestmark = shares_server


def subscription_alert(scope: scope_pb2.AlertScope, level: str = "10") -> alert_pb2.Alert:
    """usage_exceeded, with a threshold that notifies of both kinds."""
    defined = [threshold_pb2.Threshold(value=level, notify_on=BOTH)]
    alert = alert_pb2.Alert(display_name="subscription", scope=scope, thresholds=defined)
    alert.usage_exceeded.metric_id = "calls"
    return alert


@own_server
async def test_changed_time_zone_moves_the_period_and_counts_stored_events_in_it(
    caller: Caller, clock: ManualClock
) -> None:
    clock.set(utc(4, 1, 12))
    alert = await caller.create(usage_alert("10"))
    new_york, berlin = (
        customer_pb2.Customer(customer_id="acme", billing_cycle=cycle(anchor, time_zone=zone))
        for anchor, zone in ((utc(1, 1, 5), "America/New_York"), (utc(1, 1) - timedelta(hours=1), "Europe/Berlin"))
    )
    await caller.put_customer(new_york)
    # 1 April in Berlin and in UTC, 31 March in New York.
    first = await caller.send(caller.event("e1", "6", at=utc(4, 1, 2)), gauges=True)
    assert by_period(first) == {(utc(3, 1, 5), utc(4, 1, 4)): "6"}
    await caller.put_customer(berlin)
    second = await caller.send(caller.event("e2", "5"), gauges=True)
    assert by_period(second) == {(utc(4, 1) - timedelta(hours=2), utc(5, 1) - timedelta(hours=2)): "11"}
    assert shortened(second.transitions) == [ShortTransition("REACHED", "10", "6", "11", "e2")]
    [shown] = (await caller.state(alert.alert_id)).gauges
    assert period_of(shown.gauge)[0] == utc(4, 1) - timedelta(hours=2)


async def test_reached_thresholds_stay_with_their_period_when_the_billing_cycle_changes(caller: Caller) -> None:
    """The new period notifies its own, nothing resolves, and the old period keeps its state."""
    await caller.create(usage_alert(thresholds=[threshold_pb2.Threshold(value="10", notify_on=BOTH)]))
    await caller.send(caller.event("e1", "6", at=utc(3, 2)), caller.event("e2", "12", at=utc(3, 12)))
    for anchor in (utc(3, 10), utc(3, 1), utc(3, 10)):
        await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=cycle(anchor)))
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "10", "6", "18", "e2")],
        [ShortTransition("REACHED", "10", "12", "12", "")],
    ]


async def test_subscription_recreated_with_the_same_cycle_keeps_its_usage(caller: Caller) -> None:
    """A new start time does not divide the period: its usage and its state stay with the subscription."""
    await caller.create(subscription_alert(on_subscription("pro")))
    await caller.send(caller.event("e1", "12", at=utc(3, 10), subscription="pro"))
    again = subscription_pb2.Subscription(
        customer_id="acme", subscription_id="pro", start_time=to_timestamp(utc(3, 14))
    )
    await caller.put_subscription(again)
    answer = await caller.send(caller.event("e2", "1", subscription="pro"), gauges=True)
    assert by_period(answer) == {(utc(3, 1), utc(4, 1)): "13"}
    assert not answer.transitions


async def test_subscription_recreated_with_a_new_cycle_counts_from_its_start(caller: Caller) -> None:
    """Usage of the ended subscription counts in its own period, and not for the new one with the same id."""
    old, new = cycle(utc(3, 1)), cycle(utc(3, 14))
    subscription = subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", billing_cycle=old)
    await caller.put_subscription(subscription)
    alert = await caller.create(subscription_alert(on_subscription("pro")))
    await caller.send(caller.event("e1", "15", at=utc(3, 10), subscription="pro"))
    subscription.end_time.CopyFrom(to_timestamp(utc(3, 14)))
    await caller.put_subscription(subscription)
    subscription.ClearField("end_time")
    subscription.start_time.CopyFrom(to_timestamp(utc(3, 14)))
    subscription.billing_cycle.CopyFrom(new)
    await caller.put_subscription(subscription)
    answer = await caller.send(caller.event("e2", "9", subscription="pro"), gauges=True)
    assert by_period(answer) == {(utc(3, 14), utc(4, 14)): "9"}
    assert not answer.transitions, "usage of the old subscription reaches and resolves nothing of the new one"
    answer = await caller.send(caller.event("e3", "1", subscription="pro"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "9", "10", "e3")]
    assert [one.sequence for one in await caller.notifications()] == [1, 1]
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "10"


@own_server
async def test_late_usage_of_an_ended_subscription_reaches_a_threshold(caller: Caller, clock: ManualClock) -> None:
    await caller.create(subscription_alert(on_subscription("pro")))
    await caller.send(caller.event("e1", "9", at=utc(3, 10), subscription="pro"))
    ended = subscription_pb2.Subscription(
        customer_id="acme",
        subscription_id="pro",
        start_time=to_timestamp(utc(1, 1)),
        end_time=to_timestamp(utc(3, 20)),
    )
    clock.set(utc(4, 2))
    await caller.put_subscription(ended)
    answer = await caller.send(caller.event("e2", "1", at=utc(3, 19), subscription="pro"))
    assert [(one.event_id, one.value, one.late) for one in answer.transitions] == [("e2", "10", True)]


@own_server
async def test_backfill_for_an_old_subscription_writes_nothing_to_its_replacement(
    caller: Caller, clock: ManualClock, held_backfills: HeldBackfills
) -> None:
    """The backfill was requested while the old subscription was on the plan, and runs when the new one is on it."""
    gold = subscription_pb2.Subscription(customer_id="acme", subscription_id="old", plan_id="gold")
    await caller.put_subscription(gold)
    await caller.send(caller.event("e1", "15", subscription="old"))
    alert = await caller.create_only(subscription_alert(on_plan("gold")))
    await caller.put_subscription(subscription_pb2.Subscription(customer_id="acme", subscription_id="old"))
    gold.subscription_id = "new"
    await caller.put_subscription(gold)
    await caller.send(caller.event("e2", "4", subscription="new"))
    held_backfills.release()
    database = Database(caller.database_url, pool_size=1)
    while await Backfills(
        database, clock, Transactions(database, clock, timedelta(days=34), RulesRegistry())
    ).run_once():
        pass
    await database.close()
    await caller.backfilled(alert.alert_id)
    assert await caller.notifications() == []
    state = await caller.state(alert.alert_id)
    assert [(one.gauge.subscription_id, one.gauge.value) for one in state.gauges] == [("new", "4")]
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    answer = await caller.send(caller.event("e3", "6", subscription="new"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "4", "10", "e3")]


async def test_plan_change_within_a_period_keeps_the_usage_of_the_subscription(caller: Caller) -> None:
    """The alerts of the subscription and of its new plan both count the usage from before the change."""
    pro = subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="silver")
    await caller.put_subscription(pro)
    own = await caller.create(subscription_alert(on_subscription("pro"), "20"))
    silver = await caller.create(subscription_alert(on_plan("silver")))
    await caller.send(caller.event("e1", "12", subscription="pro"))
    gold = await caller.create(subscription_alert(on_plan("gold"), "16"))
    pro.plan_id = "gold"
    await caller.put_subscription(pro)
    answer = await caller.send(caller.event("e2", "8", subscription="pro"))
    assert sorted((one.alert_id, one.level, one.value) for one in answer.transitions) == sorted(
        [(own.alert_id, "20", "20"), (gold.alert_id, "16", "20")]
    )
    # The alert of the old plan notifies nothing more: its reached threshold does not resolve.
    answer = await caller.send(caller.event("e3", "-19", subscription="pro"))
    assert silver.alert_id not in {one.alert_id for one in answer.transitions}
    assert [one.event_type for one in await caller.notifications() if one.alert_id == silver.alert_id] == [
        "alert.reached"
    ]
