"""Events that move gauges below the levels of new alerts, before any backfill: the alerts are taken as evaluated.

Backfills are held back. `settled` shows which gauges the short way took; it changes nothing that is notified.
"""

from collections.abc import Sequence
from datetime import datetime

import pytest

from generated.tidemark.v1 import alert_service_pb2, threshold_pb2, usage_pb2
from store.postgres.database import DriverConnection
from store.usage import quiet_gauges
from store.usage.quiet_gauges import Quiet
from tests.support.usage.caller import (
    BOTH,
    Caller,
    ShortTransition,
    on_customer,
    on_plan,
    shortened,
    usage_alert,
)
from tests.support.usage.held_backfills import HeldBackfills
from tests.support.usage.percentages import percent, put_customer, put_limit
from tests.support.usage.voiding import outcomes, void

Level = tuple[str, str]  # a customer, and the level below which its gauge is quiet


@pytest.fixture(autouse=True)
def held(held_backfills: HeldBackfills) -> HeldBackfills:
    """Backfills begin when they are released."""
    return held_backfills


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[Level]:
    """The gauges that are taken as evaluated."""
    levels, settle_moved = list[Level](), quiet_gauges.settle_moved

    async def recorded(
        connection: DriverConnection, organization_id: int, quiet: Sequence[Quiet], epoch: int, now: datetime
    ) -> None:
        levels.extend((one.gauge.customer_id, str(one.level)) for one in quiet)
        await settle_moved(connection, organization_id, quiet, epoch, now)

    monkeypatch.setattr(quiet_gauges, "settle_moved", recorded)
    return levels


@pytest.fixture(params=[1, 30], ids=["small commit", "large commit"])
def others(request: pytest.FixtureRequest, caller: Caller) -> list[usage_pb2.UsageEvent]:
    """Events of a metric that no alert watches; with them a commit is large or not."""
    number: int = request.param
    return [caller.event(f"other-{index}", metric="unwatched") for index in range(number - 1)]


def both(level: str) -> list[threshold_pb2.Threshold]:
    """A threshold that notifies when it is reached and when it resolves."""
    return [threshold_pb2.Threshold(value=level, notify_on=BOTH)]


async def watched(caller: Caller, quantity: str = "7") -> None:
    """Has an alert of all customers watch usage, and sends an event."""
    await caller.create_only(usage_alert("1000"))
    await caller.send(caller.event("first", quantity))


async def test_gauge_below_a_new_alert_is_settled_once_and_notifies_when_usage_reaches_it(
    caller: Caller, settled: list[Level], others: list[usage_pb2.UsageEvent]
) -> None:
    await watched(caller)
    alert = await caller.create_only(usage_alert("10"))
    assert not (await caller.send(caller.event("below", "2"), *others)).transitions
    assert settled == [("acme", "10")]
    assert not (await caller.send(caller.event("still below", "0.5"))).transitions
    assert settled == [("acme", "10")]
    state = await caller.state(alert.alert_id)
    assert [gauge.gauge.value for gauge in state.gauges] == ["9.5"]
    reached = await caller.send(caller.event("at", "0.5"))
    assert shortened(reached.transitions) == [ShortTransition("REACHED", "10", "9.5", "10", "at")]


async def test_event_that_reaches_a_new_alert_is_evaluated(
    caller: Caller, settled: list[Level], others: list[usage_pb2.UsageEvent]
) -> None:
    await watched(caller)
    await caller.create_only(usage_alert("10"))
    reached = await caller.send(caller.event("at", "3"), *others)
    assert shortened(reached.transitions) == [ShortTransition("REACHED", "10", "7", "10", "at")]
    assert not settled


async def test_value_that_rises_to_a_new_alert_and_falls_within_one_commit_is_evaluated(
    caller: Caller, settled: list[Level], others: list[usage_pb2.UsageEvent]
) -> None:
    await watched(caller)
    await caller.create_only(usage_alert(thresholds=both("10")))
    found = await caller.send(caller.event("up", "5"), caller.event("down", "-5"), *others)
    assert shortened(found.transitions) == [
        ShortTransition("REACHED", "10", "7", "12", "up"),
        ShortTransition("RESOLVED", "10", "12", "7", "down"),
    ]
    assert not settled


async def test_older_alert_that_the_event_reaches_is_evaluated_together_with_the_new_one(
    caller: Caller, settled: list[Level]
) -> None:
    await caller.create_only(usage_alert("8"))
    await caller.send(caller.event("first", "7"))
    await caller.create_only(usage_alert("10"))
    found = await caller.send(caller.event("second", "2"))
    assert shortened(found.transitions) == [ShortTransition("REACHED", "8", "7", "9", "second")]
    assert not settled


@pytest.mark.parametrize("evaluate", [True, False])
async def test_gauge_that_is_at_a_new_alert_already_is_evaluated(
    caller: Caller, settled: list[Level], evaluate: bool
) -> None:
    await watched(caller, "15")
    await caller.create_only(usage_alert("10"), evaluate=evaluate)
    found = await caller.send(caller.event("second", "2"))
    past = [ShortTransition("REACHED", "10", "15", "15", "")]
    assert shortened(found.transitions) == (past if evaluate else [])
    assert not settled


async def test_two_new_alerts_of_different_epochs_are_both_evaluated(caller: Caller, settled: list[Level]) -> None:
    await watched(caller)
    await caller.create_only(usage_alert("8"))
    await caller.create_only(usage_alert("20"))
    found = await caller.send(caller.event("second", "2"))
    assert shortened(found.transitions) == [ShortTransition("REACHED", "8", "7", "9", "second")]
    assert not settled


async def test_edited_alert_is_evaluated_because_it_has_a_state(caller: Caller, settled: list[Level]) -> None:
    await caller.create_only(usage_alert("1000"))
    alert = await caller.create_only(usage_alert(thresholds=both("5")))
    await caller.send(caller.event("first", "7"))
    request = alert_service_pb2.UpdateAlertRequest(alert=alert)
    request.alert.thresholds[0].value = "50"
    request.update_mask.paths.append("thresholds")
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    found = await caller.send(caller.event("second", "1"))
    assert shortened(found.transitions) == [ShortTransition("RESOLVED", "5", "7", "7", "")]
    assert not settled


async def test_limit_of_a_plan_that_is_newer_than_the_gauge_makes_it_evaluated(
    caller: Caller, settled: list[Level]
) -> None:
    await put_customer(caller, "acme", "gold")
    await caller.create_only(usage_alert(thresholds=percent("50")))
    await caller.send(caller.event("first", "7"))
    await put_limit(caller, "16", plan="gold")
    await caller.create_only(usage_alert("1000"))
    found = await caller.send(caller.event("second", "1"))
    assert shortened(found.transitions) == [ShortTransition("REACHED", "8", "7", "8", "second")]
    assert not settled


async def test_alert_of_a_plan_or_of_one_customer_settles_only_the_gauges_that_it_covers(
    caller: Caller, settled: list[Level]
) -> None:
    await watched(caller)
    await caller.send(caller.event("beta's", "7", "beta"))
    await caller.create_only(usage_alert("20", scope=on_plan("gold")))
    await caller.create_only(usage_alert("10", scope=on_customer("beta")))
    await caller.send(caller.event("second", "1"), caller.event("beta's second", "1", "beta"))
    assert settled in ([], [("beta", "10")])  # the creation may have settled it already
    found = await caller.send(caller.event("third", "90"), caller.event("beta's third", "1", "beta"))
    assert not found.transitions
    found = await caller.send(caller.event("beta's fourth", "1", "beta"))
    assert [one.event_id for one in shortened(found.transitions)] == ["beta's fourth"]


async def test_backfill_goes_past_gauges_that_usage_has_settled(
    caller: Caller, settled: list[Level], held: HeldBackfills
) -> None:
    await watched(caller)
    alert = await caller.create_only(usage_alert("10"))
    await caller.send(caller.event("below", "1"))
    assert settled == [("acme", "10")]
    held.release()
    await caller.create_only(usage_alert("1000000"))  # wakes the backfills
    await caller.backfilled(alert.alert_id)
    found = await caller.send(caller.event("at", "2"))
    assert shortened(found.transitions) == [ShortTransition("REACHED", "10", "8", "10", "at")]
    assert [one.transitions for one in await caller.notifications() if one.alert_id == alert.alert_id] == [
        [ShortTransition("REACHED", "10", "8", "10", "at")]
    ]


async def test_gauge_that_no_alert_has_watched_for_some_time_is_counted_anew(
    caller: Caller, settled: list[Level]
) -> None:
    before = await caller.create_only(usage_alert("1000"))
    await caller.send(caller.event("first", "7"))
    await caller.archive(before.alert_id)
    await caller.send(caller.event("unwatched", "5"))
    await caller.create_only(usage_alert("14"))
    moved = await caller.send(caller.event("second", "1"), gauges=True)
    assert [gauge.value for gauge in moved.gauges] == ["13"]
    assert not settled
    found = await caller.send(caller.event("third", "1"))
    assert shortened(found.transitions) == [ShortTransition("REACHED", "14", "13", "14", "third")]


async def test_voided_usage_leaves_the_level_of_a_gauge_that_is_settled(caller: Caller, settled: list[Level]) -> None:
    await watched(caller)
    await caller.create_only(usage_alert(thresholds=both("10")))
    await caller.send(caller.event("below", "2"))
    assert settled == [("acme", "10")]
    assert outcomes(await void(caller, "below")) == ["VOIDED"]
    found = await caller.send(caller.event("still below", "2"), caller.event("at", "1"))
    assert shortened(found.transitions) == [ShortTransition("REACHED", "10", "9", "10", "at")]
    assert outcomes(await void(caller, "at")) == ["VOIDED"]
    assert [
        (crossing.kind, crossing.previous_value, crossing.value)
        for one in await caller.notifications()
        for crossing in one.transitions
    ] == [("REACHED", "9", "10"), ("RESOLVED", "10", "9")]


async def test_several_alerts_of_one_creation_settle_a_gauge_at_the_lowest_level(
    caller: Caller, settled: list[Level]
) -> None:
    await watched(caller)
    alerts = [usage_alert("30"), usage_alert("10", "20"), usage_alert("9", scope=on_customer("beta"))]
    requests = [alert_service_pb2.CreateAlertRequest(alert=alert) for alert in alerts]
    await caller.alerts.BatchCreateAlerts(
        alert_service_pb2.BatchCreateAlertsRequest(requests=requests), metadata=caller.metadata
    )
    assert not (await caller.send(caller.event("second", "2.5"))).transitions
    assert settled == [("acme", "10")]
    found = await caller.send(caller.event("third", "21"))
    assert sorted(one.level for one in found.transitions) == ["10", "20", "30"]
