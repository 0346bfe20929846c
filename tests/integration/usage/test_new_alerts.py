"""Alerts that are created after usage: what they count, what they notify, and what stays silent."""

import asyncio
from datetime import timedelta

import pytest

from engine.backfill.backfills import Backfills
from engine.backfill.steps import BackfillSteps
from engine.limits import BackfillLimits, EngineLimits
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    customer_alert_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.usage.caller import (
    BOTH,
    Caller,
    ShortTransition,
    beside,
    ingest_held,
    on_customer,
    shortened,
    thresholds,
    usage_alert,
    values,
)
from tests.support.usage.held_backfills import HeldBackfills

Threshold = threshold_pb2.Threshold
NOTIFY_ON_BOTH = [Threshold(value="10", notify_on=BOTH)]


async def notified(caller: Caller, alert: alert_pb2.Alert) -> list[list[ShortTransition]]:
    """The transitions of each notification of an alert."""
    return [one.transitions for one in await caller.notifications() if one.alert_id == alert.alert_id]


@pytest.mark.parametrize("watched_before", [True, False], ids=["the gauge existed", "the gauge is new"])
@pytest.mark.parametrize("evaluate", [True, None, False])
async def test_threshold_already_reached_at_creation_notifies_unless_evaluate_on_create_is_false(
    caller: Caller, evaluate: bool | None, watched_before: bool
) -> None:
    if watched_before:
        await caller.create(usage_alert("1000"))
    await caller.send(caller.event("e1", "7"), caller.event("e2", "8"))
    alert = await caller.create(usage_alert(thresholds=NOTIFY_ON_BOTH), evaluate=evaluate)
    at_once = [] if evaluate is False else [[ShortTransition("REACHED", "10", "15", "15", "")]]
    assert await notified(caller, alert) == at_once
    state = await caller.state(alert.alert_id)
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    [gauge] = state.gauges
    assert gauge.gauge.value == "15"
    assert gauge.thresholds[0].silent is (evaluate is False)
    assert gauge.change_reason == customer_alert_pb2.CHANGE_REASON_EVALUATION

    assert not (await caller.send(caller.event("e3", "1"))).transitions
    assert await notified(caller, alert) == at_once
    back = [] if evaluate is False else [ShortTransition("RESOLVED", "10", "16", "9", "e4")]
    assert shortened((await caller.send(caller.event("e4", "-7"))).transitions) == back
    again = [ShortTransition("REACHED", "10", "9", "10", "e5")]
    assert shortened((await caller.send(caller.event("e5", "1"))).transitions) == again
    assert await notified(caller, alert) == [*at_once, *([back] if back else []), again]


@pytest.mark.parametrize("watched_before", [True, False], ids=["the gauge existed", "the gauge is new"])
@pytest.mark.parametrize("evaluate", [True, False])
async def test_threshold_not_reached_at_creation_notifies_when_usage_reaches_it(
    caller: Caller, evaluate: bool, watched_before: bool
) -> None:
    if watched_before:
        await caller.create(usage_alert("1000"))
    await caller.send(caller.event("e1", "9"))
    alert = await caller.create(usage_alert("10"), evaluate=evaluate)
    assert not await notified(caller, alert)
    assert (await caller.state(alert.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    answer = await caller.send(caller.event("e2", "1"), caller.event("e3", "90", "beta"))
    assert sorted(shortened(answer.transitions)) == [
        ShortTransition("REACHED", "10", "0", "90", "e3"),
        ShortTransition("REACHED", "10", "9", "10", "e2"),
    ]


@pytest.mark.parametrize("evaluate", [True, False])
async def test_event_that_precedes_the_backfill_evaluates_its_gauge(
    caller: Caller, clock: ManualClock, evaluate: bool, held_backfills: HeldBackfills
) -> None:
    await caller.send(caller.event("e1", "15"), caller.event("e2", "9", "beta"), caller.event("e3", "15", "gamma"))
    alert = await caller.create_only(usage_alert(thresholds=NOTIFY_ON_BOTH), evaluate=evaluate)
    assert (await caller.state(alert.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_EVALUATING
    answer = await caller.send(caller.event("e4", "-9"), caller.event("e5", "4"), caller.event("e6", "1", "beta"))
    past = [ShortTransition("REACHED", "10", "15", "15", ""), ShortTransition("RESOLVED", "10", "15", "6", "e4")]
    acme = [*(past if evaluate else []), ShortTransition("REACHED", "10", "6", "10", "e5")]
    beta = [ShortTransition("REACHED", "10", "9", "10", "e6")]
    assert [one for one in shortened(answer.transitions) if one.event_id != "e6"] == acme
    assert [one for one in shortened(answer.transitions) if one.event_id == "e6"] == beta

    held_backfills.release()
    database = Database(caller.database_url)
    while await Backfills(
        database, clock, Transactions(database, clock, timedelta(days=34), RulesRegistry())
    ).run_once():
        pass
    await database.close()
    await caller.backfilled(alert.alert_id)
    gamma = [[ShortTransition("REACHED", "10", "15", "15", "")]] if evaluate else []
    assert await notified(caller, alert) == [acme, beta, *gamma]


async def test_new_alert_on_an_unwatched_group_key_counts_earlier_usage(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    for number in range(6):
        await caller.send(caller.event(f"e{number}", "4", region="eu" if number % 2 else "us", tier="a"))
    await caller.send(caller.event("e6", "100"))
    alert = await caller.create(usage_alert("12", groups=[("region", None)]))
    assert sorted(await notified(caller, alert)) == [[ShortTransition("REACHED", "12", "12", "12", "")]] * 2
    narrow = await caller.create(usage_alert("13", groups=[("region", "eu"), ("tier", None)]))
    assert not await notified(caller, narrow)
    answer = await caller.send(caller.event("e7", "1", region="eu", tier="a"), gauges=True)
    assert values(answer.gauges) == {
        ("acme", "calls"): 125,
        ("acme", "calls", "eu"): 13,
        ("acme", "calls", "eu", "a"): 13,
    }
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "13", "12", "13", "e7")]


async def test_new_alert_counts_usage_that_no_alert_watched(caller: Caller) -> None:
    first = await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "12"))
    await caller.archive(first.alert_id)
    answer = await caller.send(caller.event("e2", "30"), gauges=True)
    assert not answer.gauges
    assert not answer.transitions
    second = await caller.create(usage_alert("10", "40", "50"))
    assert await notified(caller, second) == [
        [ShortTransition("REACHED", "10", "42", "42", ""), ShortTransition("REACHED", "40", "42", "42", "")]
    ]
    answer = await caller.send(caller.event("e3", "8"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 50}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "50", "42", "50", "e3")]
    assert (await caller.state(first.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED
    assert len(await notified(caller, first)) == 1


async def test_next_event_counts_the_usage_between_two_alerts(caller: Caller, held_backfills: HeldBackfills) -> None:
    first = await caller.create_only(usage_alert("10"))
    await caller.send(caller.event("e1", "12"))
    await caller.archive(first.alert_id)
    await caller.send(caller.event("e2", "30"))
    await caller.create_only(usage_alert("100"))
    answer = await caller.send(caller.event("e3", "60"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 102}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "100", "42", "102", "e3")]


async def test_alerts_created_and_archived_beside_a_watching_alert_count_exactly(caller: Caller) -> None:
    await caller.create(usage_alert("1000", scope=on_customer()))
    for number in range(3):
        alert = await caller.create(usage_alert(str(10 * (number + 1))))
        await caller.send(caller.event(f"e{number}", "10"))
        assert len(await notified(caller, alert)) == 1
        await caller.archive(alert.alert_id)
    answer = await caller.send(caller.event("e9", "0"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 30}


async def test_alert_created_while_usage_waits_for_the_lock_misses_no_event(caller: Caller) -> None:
    """Creation and usage wait for the same lock: in either order each event is counted."""
    await caller.send(caller.event("e0"))
    async with ingest_held(caller):
        creating = [asyncio.create_task(caller.create_only(usage_alert(str(level)))) for level in (2, 3, 4)]
        sending = [asyncio.create_task(caller.send(caller.event(f"e{number}"))) for number in range(1, 6)]
        await asyncio.sleep(0)
    alerts = await asyncio.gather(*creating)
    await asyncio.gather(*sending)
    for alert in alerts:
        await caller.backfilled(alert.alert_id)
        assert len(await notified(caller, alert)) == 1
        assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "6"


@pytest.mark.parametrize("engine_limits", [EngineLimits(backfills=BackfillLimits(customers_per_step=7))])
async def test_backfill_evaluates_each_of_many_customers_once(caller: Caller, engine_limits: EngineLimits) -> None:
    customers = [f"c{number:02d}" for number in range(40)]
    await caller.send(*(caller.event("e1", str(number), customer) for number, customer in enumerate(customers)))
    async with beside(caller, engine_limits=engine_limits) as other:
        alert = await other.create(usage_alert("20"))
        stored = [one.customer_id for one in await caller.notifications() if one.alert_id == alert.alert_id]
    assert stored == customers[20:]
    assert all(len(one.transitions) == 1 for one in await caller.notifications())


async def test_failing_backfill_does_not_delay_other_alerts(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await caller.send(caller.event("e1", "15"))
    step = BackfillSteps._step
    broken: set[str] = set()

    async def breaking(steps: BackfillSteps, due: object, size: int) -> bool:
        if getattr(due, "alert_id", "") in broken:
            raise ArithmeticError("this backfill fails")
        return await step(steps, due, size)  # type: ignore[arg-type]  # it is a Due

    monkeypatch.setattr(BackfillSteps, "_step", breaking)
    async with ingest_held(caller):
        creating = [asyncio.create_task(caller.create_only(usage_alert("10"))) for _ in range(4)]
        await asyncio.sleep(0)
    alerts = sorted([one.alert_id for one in await asyncio.gather(*creating)])
    broken.add(alerts[0])
    later = await caller.create(usage_alert("12"))
    for alert_id in alerts[1:]:
        await caller.backfilled(alert_id)
    assert {one.alert_id for one in await caller.notifications()} >= {*alerts[1:], later.alert_id}


async def test_archived_alert_is_not_backfilled(caller: Caller, held_backfills: HeldBackfills) -> None:
    await caller.send(caller.event("e1", "15"))
    alert = await caller.create_only(usage_alert("10"))
    await caller.archive(alert.alert_id)
    request = alert_service_pb2.GetAlertRequest(alert_id=alert.alert_id)
    archived = (await caller.alerts.GetAlert(request, metadata=caller.metadata)).alert
    assert archived.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE
    assert not (await caller.send(caller.event("e2", "15"))).transitions
    assert not await caller.notifications()


async def test_customer_without_usage_has_no_gauge_and_no_alarm(caller: Caller) -> None:
    await caller.send(caller.event("e1", "5", metric="other"))
    alert = await caller.create(usage_alert(thresholds=thresholds("-1", "0")))
    state = await caller.state(alert.alert_id)
    assert state.no_data
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    assert not await caller.notifications()
