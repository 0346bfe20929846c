"""Alerts that are changed at the same time, or disabled, archived and created again while they are evaluated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import psycopg
import pytest

from engine.visits import visits
from generated.tidemark.v1 import alert_pb2, alert_service_pb2, threshold_pb2
from server.mapping import alerts as alert_mapping
from tests.integration.usage.conftest import caller, shared_database_url
from tests.support.server.running import violations_of
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    Crossing,
    crossings,
    ingest_held,
    until,
    usage_alert,
    waiting_for_locks,
)

__all__ = ["caller", "shared_database_url"]

CUSTOMERS = ("ann", "bob", "cid")


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


async def told(caller: Caller, alert_id: str) -> list[str]:
    """The customers of whom the alert has told, each as often as it did."""
    return sorted(one.customer_id for one in await caller.notifications() if one.alert_id == alert_id)


async def test_an_alert_disabled_during_its_visit_tells_no_more_and_the_rest_when_it_is_enabled(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "CUSTOMERS_PER_VISIT", 1)
    await caller.create(usage_alert("1000"))
    await caller.send(*(caller.event("e1", "15", customer) for customer in CUSTOMERS))
    async with gauge_held(caller, "bob"):
        alert = await caller.create_only(usage_alert("10"))

        async def first_told() -> bool:
            return await told(caller, alert.alert_id) == ["ann"]

        await until(first_told)
        await waiting_for_locks(caller)
        disabling = asyncio.create_task(disable(caller, alert.alert_id))
        await waiting_for_locks(caller, 2)
    assert (await disabling).state == alert_pb2.ALERT_STATE_DISABLED
    known = await told(caller, alert.alert_id)
    # Bob's evaluation was under way and is whole. Cid's would have come after the answer.
    assert known == ["ann", "bob"]
    await caller.send(caller.event("e2", "1", "cid"))
    assert await told(caller, alert.alert_id) == known
    enable = alert_service_pb2.EnableAlertRequest(alert_id=alert.alert_id)
    await caller.alerts.EnableAlert(enable, metadata=caller.metadata)
    await caller.visited(alert.alert_id)
    assert await told(caller, alert.alert_id) == list(CUSTOMERS)


async def test_an_alert_disabled_while_usage_is_committed_tells_of_that_usage_and_of_none_after_it(
    caller: Caller,
) -> None:
    alert = await caller.create(usage_alert("10", "20"))
    await caller.send(caller.event("e1", "4"))
    async with gauge_held(caller, "acme"):
        sending = asyncio.create_task(caller.send(caller.event("e2", "6")))
        await waiting_for_locks(caller)
        disabling = asyncio.create_task(disable(caller, alert.alert_id))
        await waiting_for_locks(caller, 2)
    assert crossings((await sending).transitions) == [Crossing("REACHED", "10", "4", "10", "e2")]
    await disabling
    assert not (await caller.send(caller.event("e3", "15"))).transitions
    assert [one.crossings for one in await caller.notifications()] == [[Crossing("REACHED", "10", "4", "10", "e2")]]


async def test_an_alert_archived_during_its_visit_ends_it(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "CUSTOMERS_PER_VISIT", 1)
    await caller.create(usage_alert("1000"))
    await caller.send(*(caller.event("e1", "15", customer) for customer in CUSTOMERS))
    async with gauge_held(caller, "bob"):
        alert = await caller.create_only(usage_alert("10"))
        await waiting_for_locks(caller)
        archiving = asyncio.create_task(caller.archive(alert.alert_id))
        await waiting_for_locks(caller, 2)
    await archiving
    await caller.visited(alert.alert_id)
    assert await told(caller, alert.alert_id) == ["ann", "bob"]


async def test_an_alert_created_again_with_the_key_of_an_archived_one_begins_afresh(caller: Caller) -> None:
    wanted = usage_alert("10")
    wanted.uniqueness_key = "mine"
    first = await caller.create(wanted)
    await caller.send(caller.event("e1", "15"))
    release = alert_service_pb2.ArchiveAlertRequest(alert_id=first.alert_id, release_uniqueness_key=True)
    await caller.alerts.ArchiveAlert(release, metadata=caller.metadata)
    second = await caller.create(wanted)
    assert second.alert_id != first.alert_id
    assert await told(caller, first.alert_id) == await told(caller, second.alert_id) == ["acme"]
    assert {one.sequence for one in await caller.notifications()} == {1}
    assert not (await caller.send(caller.event("e2", "1"))).transitions


async def update(caller: Caller, alert: alert_pb2.Alert) -> alert_pb2.Alert:
    request = alert_service_pb2.UpdateAlertRequest(alert=alert)
    return (await caller.alerts.UpdateAlert(request, metadata=caller.metadata, timeout=DEADLINE)).alert


async def updated_together(caller: Caller, *alerts: alert_pb2.Alert) -> list[alert_pb2.Alert | BaseException]:
    """The answers to updates that were all read before the first of them could be written."""
    async with ingest_held(caller):
        updates = [asyncio.create_task(update(caller, alert)) for alert in alerts]
        await waiting_for_locks(caller, len(alerts))
    return await asyncio.gather(*updates, return_exceptions=True)


async def test_updates_of_different_fields_at_the_same_time_are_both_applied(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    raised = [threshold_pb2.Threshold(value="20")]
    answers = await updated_together(
        caller,
        alert_pb2.Alert(alert_id=alert.alert_id, name="renamed"),
        alert_pb2.Alert(alert_id=alert.alert_id, thresholds=raised),
    )
    versions = [answer.version for answer in answers if isinstance(answer, alert_pb2.Alert)]
    assert sorted(versions) == [2, 3]
    request = alert_service_pb2.GetAlertRequest(alert_id=alert.alert_id)
    found = (await caller.alerts.GetAlert(request, metadata=caller.metadata)).alert
    assert (found.name, found.thresholds[0].value, found.version) == ("renamed", "20", 3)


async def test_the_same_update_twice_at_the_same_time_makes_one_version(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    renamed = alert_pb2.Alert(alert_id=alert.alert_id, name="renamed")
    first, second = await updated_together(caller, renamed, renamed)
    assert isinstance(first, alert_pb2.Alert)
    assert (first.version, second) == (2, first)


async def test_updates_at_the_same_time_that_are_too_long_together_are_not_both_applied(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert = await caller.create(usage_alert("10"))
    long = [threshold_pb2.Threshold(value="10", code="c" * 100)]
    monkeypatch.setattr(alert_mapping, "MAX_DEFINITION_BYTES", alert_mapping._OUTPUT_BYTES + 240)
    answers = await updated_together(
        caller,
        alert_pb2.Alert(alert_id=alert.alert_id, name="n" * 140),
        alert_pb2.Alert(alert_id=alert.alert_id, thresholds=long),
    )
    [applied] = [answer for answer in answers if isinstance(answer, alert_pb2.Alert)]
    [refused] = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert violations_of(refused) == ["alert"]
    request = alert_service_pb2.GetAlertRequest(alert_id=alert.alert_id)
    found = (await caller.alerts.GetAlert(request, metadata=caller.metadata)).alert
    assert (found.name, found.thresholds[:], found.version) == (applied.name, applied.thresholds[:], 2)
