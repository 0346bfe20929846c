"""Two organizations with the same ids neither read nor change each other's data."""

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_service_pb2,
    customer_pb2,
    metric_pb2,
)
from runtime.clock import ManualClock
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, ShortTransition, shortened, usage_alert, values
from tests.support.usage.organizations import organization

pytestmark = shares_server


@pytest.fixture
async def stranger(caller: Caller, clock: ManualClock) -> Caller:
    """A caller of the same server, as another organization."""
    name, key = await organization(caller.database_url, clock)
    return Caller(caller.server, clock, caller.database_url, name, key)


async def test_same_ids_in_two_organizations_are_separate(caller: Caller, stranger: Caller) -> None:
    await caller.put_metric("calls", metric_pb2.AGGREGATION_MAX)
    ours = await caller.create(usage_alert("10"))
    theirs = await stranger.create(usage_alert("12"))
    for one, first, second, crossing in (
        (caller, "11", "7", ShortTransition("REACHED", "10", "0", "11", "e1")),
        (stranger, "6", "7", ShortTransition("REACHED", "12", "6", "13", "e2")),
    ):
        answer = await one.send(one.event("e1", first), one.event("e2", second))
        assert (answer.accepted, answer.duplicates, len(answer.rejected)) == (2, 0, 0)
        assert shortened(answer.transitions) == [crossing]
    for one, expected_value in ((caller, 11), (stranger, 14)):
        answer = await one.send(one.event("e3"), gauges=True)
        assert values(answer.gauges) == {("acme", "calls"): expected_value}
        assert await one.event_count() == 3
    for one, alert in ((caller, ours), (stranger, theirs)):
        [stored] = await one.notifications()
        assert stored.alert_id == alert.alert_id
        listed = await one.alerts.ListAlerts(alert_service_pb2.ListAlertsRequest(), metadata=one.metadata)
        assert [item.alert_id for item in listed.alerts] == [alert.alert_id]


async def test_alerts_and_customers_of_another_organization_are_not_found(caller: Caller, stranger: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "15"))
    with pytest.raises(grpc.aio.AioRpcError) as unknown_customer:
        await stranger.state(alert.alert_id)
    assert reason_of(unknown_customer.value) == "ERROR_REASON_CUSTOMER_NOT_FOUND"
    await stranger.send(stranger.event("e1", "15"))
    with pytest.raises(grpc.aio.AioRpcError) as unknown_alert:
        await stranger.state(alert.alert_id)
    assert reason_of(unknown_alert.value) == "ERROR_REASON_ALERT_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as not_archived:
        await stranger.archive(alert.alert_id)
    assert reason_of(not_archived.value) == "ERROR_REASON_ALERT_NOT_FOUND"
    assert not await stranger.notifications()
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "15"


async def test_currency_of_a_customer_applies_only_in_its_organization(caller: Caller, stranger: Caller) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", currency="EUR"))
    for one in (caller, stranger):
        alert = usage_alert("1")
        alert.spend_threshold_reached.currency = "EUR"
        await one.create(alert)
    ours = await caller.send(caller.event("e1", cost="2"), gauges=True)
    theirs = await stranger.send(stranger.event("e1", cost="2"), gauges=True)
    assert values(ours.gauges) == {("acme", "EUR"): 2}
    assert not theirs.gauges


async def test_backfill_covers_only_customers_of_its_organization(caller: Caller, stranger: Caller) -> None:
    await caller.send(caller.event("e1", "15"))
    await stranger.send(stranger.event("e1", "15"), stranger.event("e2", "15", "beta"))
    await caller.create(usage_alert("10"))
    assert [one.customer_id for one in await caller.notifications()] == ["acme"]
    assert not await stranger.notifications()
