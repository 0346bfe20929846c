"""Alerts that are disabled, archived and created again during their evaluation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from engine.limits import BackfillLimits, EngineLimits
from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    ShortTransition,
    shortened,
    until,
    usage_alert,
    waiting_for_locks,
)

CUSTOMERS = ("ann", "bob", "cid")

one_customer_per_step = pytest.mark.parametrize(
    "engine_limits", [EngineLimits(backfills=BackfillLimits(customers_per_step=1))]
)


@asynccontextmanager
async def gauge_held(caller: Caller, customer: str) -> AsyncIterator[None]:
    """Keeps every evaluation of the customer's one gauge waiting inside the block."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        held = await connection.execute(
            "SELECT FROM gauge WHERE organization_id = %s AND customer_id = %s FOR UPDATE",
            (organization_id, customer),
        )
        assert held.rowcount == 1
        yield


async def disable(caller: Caller, alert_id: str) -> alert_pb2.Alert:
    request = alert_service_pb2.DisableAlertRequest(alert_id=alert_id)
    return (await caller.alerts.DisableAlert(request, metadata=caller.metadata, timeout=DEADLINE)).alert


async def notified(caller: Caller, alert_id: str) -> list[str]:
    """The customers of the alert's notifications, once for each notification."""
    return sorted(one.customer_id for one in await caller.evaluations() if one.alert_id == alert_id)


@one_customer_per_step
async def test_an_alert_disabled_during_its_backfill_notifies_of_the_rest_when_it_is_enabled(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    await caller.send(*(caller.event("e1", "15", customer) for customer in CUSTOMERS))
    async with gauge_held(caller, "bob"):
        alert = await caller.create_only(usage_alert("10"))

        async def first_notified() -> bool:
            return await notified(caller, alert.alert_id) == ["ann"]

        await until(first_notified)
        await waiting_for_locks(caller)
        disabling = asyncio.create_task(disable(caller, alert.alert_id))
        await waiting_for_locks(caller, 2)
    assert (await disabling).state == alert_pb2.ALERT_STATE_DISABLED
    known = await notified(caller, alert.alert_id)
    # Bob's evaluation was in progress and is complete. Cid's would follow after the answer.
    assert known == ["ann", "bob"]
    await caller.send(caller.event("e2", "1", "cid"))
    assert await notified(caller, alert.alert_id) == known
    enable = alert_service_pb2.EnableAlertRequest(alert_id=alert.alert_id)
    await caller.alerts.EnableAlert(enable, metadata=caller.metadata)
    await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert.alert_id) == list(CUSTOMERS)


async def test_an_alert_disabled_during_a_commit_notifies_of_that_usage_and_of_none_after_it(
    caller: Caller,
) -> None:
    alert = await caller.create(usage_alert("10", "20"))
    await caller.send(caller.event("e1", "4"))
    async with gauge_held(caller, "acme"):
        sending = asyncio.create_task(caller.send(caller.event("e2", "6")))
        await waiting_for_locks(caller)
        disabling = asyncio.create_task(disable(caller, alert.alert_id))
        await waiting_for_locks(caller, 2)
    assert shortened((await sending).transitions) == [ShortTransition("REACHED", "10", "4", "10", "e2")]
    await disabling
    assert not (await caller.send(caller.event("e3", "15"))).transitions
    assert [one.transitions for one in await caller.evaluations()] == [
        [ShortTransition("REACHED", "10", "4", "10", "e2")]
    ]


@one_customer_per_step
async def test_an_alert_archived_during_its_backfill_ends_the_backfill(caller: Caller) -> None:
    await caller.create(usage_alert("1000"))
    await caller.send(*(caller.event("e1", "15", customer) for customer in CUSTOMERS))
    async with gauge_held(caller, "bob"):
        alert = await caller.create_only(usage_alert("10"))
        await waiting_for_locks(caller)
        archiving = asyncio.create_task(caller.archive(alert.alert_id))
        await waiting_for_locks(caller, 2)
    await archiving
    await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert.alert_id) == ["ann", "bob"]


async def test_an_alert_created_with_the_key_of_an_archived_one_notifies_again(caller: Caller) -> None:
    wanted = usage_alert("10")
    wanted.uniqueness_key = "mine"
    first = await caller.create(wanted)
    await caller.send(caller.event("e1", "15"))
    release = alert_service_pb2.ArchiveAlertRequest(alert_id=first.alert_id, release_uniqueness_key=True)
    await caller.alerts.ArchiveAlert(release, metadata=caller.metadata)
    second = await caller.create(wanted)
    assert second.alert_id != first.alert_id
    assert await notified(caller, first.alert_id) == await notified(caller, second.alert_id) == ["acme"]
    assert {one.sequence for one in await caller.evaluations()} == {1}
    assert not (await caller.send(caller.event("e2", "1"))).transitions
