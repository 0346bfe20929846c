"""`evaluate_on_create: false`: a threshold reached before the creation is silent; one reached later notifies."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from engine.backfill.backfills import Backfills
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    customer_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.usage.caller import Caller, ShortTransition, on_plan, usage_alert


async def switched(caller: Caller, alert: alert_pb2.Alert, *, on: bool, customer: str = "") -> None:
    """Enables or disables an alert, for all or for one customer, and waits for its backfill."""
    ids: dict[str, Any] = {"alert_id": alert.alert_id, "customer_id": customer}
    if on:
        await caller.alerts.EnableAlert(alert_service_pb2.EnableAlertRequest(**ids), metadata=caller.metadata)
        await caller.backfilled(alert.alert_id)
    else:
        await caller.alerts.DisableAlert(alert_service_pb2.DisableAlertRequest(**ids), metadata=caller.metadata)


async def notified(caller: Caller) -> list[tuple[str, list[ShortTransition]]]:
    return [(one.customer_id, one.transitions) for one in await caller.evaluations()]


def reached(value: str) -> list[ShortTransition]:
    return [ShortTransition("REACHED", "10", value, value, "")]


@pytest.mark.parametrize("customer", ["", "beta"], ids=["for all", "for one customer"])
async def test_threshold_reached_while_the_alert_is_disabled_notifies_when_it_is_enabled(
    caller: Caller, customer: str
) -> None:
    await caller.send(caller.event("e1", "15"))
    alert = await caller.create(usage_alert("10"), evaluate=False)
    await switched(caller, alert, on=False, customer=customer)
    await caller.send(caller.event("e2", "12", "beta"))
    await switched(caller, alert, on=True, customer=customer)
    assert await notified(caller) == [("beta", reached("12"))]
    [gauge] = (await caller.state(alert.alert_id)).gauges
    assert gauge.thresholds[0].silent


async def test_customer_that_joins_the_plan_later_notifies(caller: Caller) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    await caller.send(caller.event("e1", "15"), caller.event("e2", "12", "beta"))
    alert = await caller.create(usage_alert("10", scope=on_plan("gold")), evaluate=False)
    await caller.put_customer(customer_pb2.Customer(customer_id="beta", plan_id="gold"))
    assert await notified(caller) == [("beta", reached("12"))]
    assert (await caller.state(alert.alert_id)).gauges[0].thresholds[0].silent


async def test_threshold_stays_silent_when_the_backfill_waits_until_the_alert_is_enabled(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that is disabled before its backfill still marks earlier thresholds silently."""
    await caller.send(caller.event("e1", "15"))
    held, run_once = asyncio.Event(), Backfills.run_once

    async def unless_held(backfills: Backfills) -> bool:
        return held.is_set() and await run_once(backfills)

    monkeypatch.setattr(Backfills, "run_once", unless_held)
    alert = await caller.create_only(usage_alert("10"), evaluate=False)
    await switched(caller, alert, on=False)
    held.set()
    database = Database(caller.database_url)
    while await Backfills(
        database, clock, Transactions(database, clock, timedelta(days=34), RulesRegistry())
    ).run_once():
        pass
    await database.close()
    await switched(caller, alert, on=True)
    assert not await notified(caller)
    assert (await caller.state(alert.alert_id)).gauges[0].thresholds[0].silent


async def test_late_event_is_silent_in_a_period_before_the_alert_and_notifies_in_a_later_one(
    caller: Caller, clock: ManualClock
) -> None:
    await caller.send(caller.event("e1", "15"))
    first = clock.now()
    clock.advance(timedelta(days=31))
    alert = await caller.create(usage_alert("10"), evaluate=False)
    await switched(caller, alert, on=False)
    await caller.send(caller.event("e2", "12"))
    second = clock.now()
    clock.advance(timedelta(days=18))  # within the grace of March
    await switched(caller, alert, on=True)
    assert not (await caller.send(caller.event("e3", "1", at=first + timedelta(days=5)))).transitions
    await caller.send(caller.event("e4", "1", at=second))
    assert await notified(caller) == [("acme", reached("12"))]
