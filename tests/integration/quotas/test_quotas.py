"""Quotas: what is refused at the limit, with which details, and what is exact on two servers."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_service_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    endpoint_pb2,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from runtime.clock import ManualClock
from runtime.quotas import QuotaKind
from store.alerts import counts
from store.postgres.database import Database
from tests.support.quotas.limited import QuotaRefusal, only, refusal_of, set_quotas, shown
from tests.support.usage.caller import DEADLINE, Caller, beside, settings, until, usage_alert
from tests.support.usage.organizations import create_organization


async def refused(work: Awaitable[object]) -> QuotaRefusal:
    """The refusal of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await work
    return refusal_of(raised.value)


async def create_all(caller: Caller, numbers: range) -> list[str | QuotaRefusal]:
    """Creates alerts at the same time; returns their ids, and the refusals."""

    async def create(number: int) -> str | QuotaRefusal:
        try:
            return (await caller.create_only(usage_alert(str(number)))).alert_id
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)

    return await asyncio.gather(*(create(number) for number in numbers))


async def test_alerts_above_the_quota_are_refused_without_a_time(caller: Caller, own_pool: Database) -> None:
    await set_quotas(own_pool, caller, only(QuotaKind.ALERTS, 2))
    first, _ = await create_all(caller, range(1, 3))
    expected = QuotaRefusal("alerts", 2, f"organization:{caller.organization}", None)
    assert await refused(caller.create_only(usage_alert("3"))) == expected
    assert await refused(caller.create_only(usage_alert("3"))) == expected
    assert (await shown(caller))["alerts"].used == 2
    # An archived alert does not count, and each is archived once.
    for _ in range(2):
        await caller.archive(str(first))
    assert (await shown(caller))["alerts"].used == 1
    await caller.create_only(usage_alert("3"))
    assert await refused(caller.create_only(usage_alert("4"))) == expected


async def test_quota_of_alerts_is_exact_when_two_servers_create_at_the_same_time(
    caller: Caller, own_pool: Database
) -> None:
    earlier = await create_all(caller, range(1, 4))
    assert all(isinstance(one, str) for one in earlier)
    async with beside(caller) as other:
        await set_quotas(own_pool, caller, only(QuotaKind.ALERTS, 20), other)
        results = await asyncio.gather(create_all(caller, range(10, 40)), create_all(other, range(50, 80)))
        created = [one for some in results for one in some if isinstance(one, str)]
        assert len(created) == 17
        assert await stored_alerts(caller) == 20
        assert [(await shown(one))["alerts"].used for one in (caller, other)] == [20, 20]


async def stored_alerts(caller: Caller) -> int:
    """How many alerts the organization has, without archived ones."""
    [[stored]] = await caller.rows(
        "SELECT count(*) FROM alert WHERE organization_id = %(organization_id)s AND state <> 'ARCHIVED'"
    )
    assert isinstance(stored, int)
    return stored


async def test_few_alerts_are_counted_when_quotas_are_shown_and_the_number_of_many_is_kept(
    caller: Caller, own_pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MOST_COUNTED", 3)

    async def kept() -> list[int]:
        rows = await caller.rows("SELECT alerts FROM alert_count WHERE organization_id = %(organization_id)s")
        return [number for [number] in rows if isinstance(number, int)]

    ids = [str(one) for one in await create_all(caller, range(3))]
    await set_quotas(own_pool, caller, only(QuotaKind.ALERTS, 100))
    assert ((await shown(caller))["alerts"].used, await kept()) == (3, [])
    await set_quotas(own_pool, caller, {QuotaKind.ALERTS: None})  # a creation would keep the number
    await caller.create_only(usage_alert("9"))
    await set_quotas(own_pool, caller, only(QuotaKind.ALERTS, 100))
    assert ((await shown(caller))["alerts"].used, await kept()) == (4, [4])
    await caller.archive(ids[0])
    assert ((await shown(caller))["alerts"].used, await kept()) == (3, [3])


@pytest.mark.parametrize("turn", range(3))
async def test_number_of_alerts_is_exact_when_it_is_first_counted_beside_creations(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """A server without the quota creates and archives, while another with it creates, and shows its use."""
    monkeypatch.setattr(counts, "MOST_COUNTED", 3)
    ids = [str(one) for one in await create_all(caller, range(8))]
    async with beside(caller, replace(settings(), quotas=only(QuotaKind.ALERTS, 1_000))) as other:
        await asyncio.gather(
            create_all(caller, range(10, 20)),
            *(caller.archive(one) for one in ids[:4]),
            *(shown(other) for _ in range(8)),
            *((create_all(other, range(20, 30)),) if turn else ()),
        )
        assert (await shown(other))["alerts"].used == await stored_alerts(caller)


async def test_batch_of_alerts_above_the_quota_is_refused_as_a_whole(caller: Caller, own_pool: Database) -> None:
    await set_quotas(own_pool, caller, only(QuotaKind.ALERTS, 3))
    requests = [alert_service_pb2.CreateAlertRequest(alert=usage_alert(str(number))) for number in range(1, 6)]

    async def create(number: int, *, validate_only: bool = False) -> None:
        batch = alert_service_pb2.BatchCreateAlertsRequest(requests=requests[:number], validate_only=validate_only)
        await caller.alerts.BatchCreateAlerts(batch, metadata=caller.metadata, timeout=DEADLINE)

    for validate_only in (True, False):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await create(5, validate_only=validate_only)
        assert refusal_of(raised.value).quota == "alerts"
    assert (await shown(caller))["alerts"].used == 0
    await create(3)
    assert (await shown(caller))["alerts"].used == 3


async def test_quota_of_one_organization_does_not_limit_another(
    caller: Caller, own_pool: Database, clock: ManualClock
) -> None:
    await set_quotas(own_pool, caller, only(QuotaKind.ALERTS, 0))
    assert (await refused(caller.create_only(usage_alert("1")))).limit == 0
    name, key = await create_organization(own_pool, clock)
    neighbour = Caller(caller.server, clock, caller.database_url, name, key)
    await neighbour.create_only(usage_alert("1"))
    quotas = await shown(neighbour)
    assert not any(one.own or one.HasField("limit") for one in quotas.values())
    assert not quotas["alerts"].HasField("used")


async def test_quota_of_the_configuration_applies_to_every_organization_without_its_own(
    caller: Caller, own_pool: Database
) -> None:
    async with beside(caller, replace(settings(), quotas=only(QuotaKind.ALERTS, 1))) as other:
        await other.create_only(usage_alert("1"))
        assert (await refused(other.create_only(usage_alert("2")))).limit == 1
        found = (await shown(other))["alerts"]
        assert (found.limit, found.used, found.own) == (1, 1, False)
        await set_quotas(own_pool, other, {QuotaKind.ALERTS: None})
        await other.create_only(usage_alert("2"))
    async with beside(caller, replace(settings(), quotas=only(QuotaKind.ALERTS, 1))) as restarted:
        await restarted.create_only(usage_alert("3"))


async def test_endpoints_above_the_quota_are_refused(caller: Caller, own_pool: Database) -> None:
    webhooks = webhook_service_pb2_grpc.WebhookServiceStub(caller.server.channel)
    await set_quotas(own_pool, caller, only(QuotaKind.ENDPOINTS, 2))

    async def create(number: int) -> str | QuotaRefusal:
        endpoint = endpoint_pb2.Endpoint(url=f"https://hooks.example.com/{number}")
        request = webhook_service_pb2.CreateEndpointRequest(endpoint=endpoint)
        try:
            answer = await webhooks.CreateEndpoint(request, metadata=caller.metadata, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        return answer.endpoint.endpoint_id

    results = await asyncio.gather(*(create(number) for number in range(6)))
    ids = [one for one in results if isinstance(one, str)]
    assert len(ids) == 2
    assert {one for one in results if isinstance(one, QuotaRefusal)} == {
        QuotaRefusal("endpoints", 2, f"organization:{caller.organization}", None)
    }
    assert (await shown(caller))["endpoints"].used == 2
    await webhooks.DeleteEndpoint(
        webhook_service_pb2.DeleteEndpointRequest(endpoint_id=ids[0]), metadata=caller.metadata
    )
    assert isinstance(await create(7), str)


async def test_streams_above_the_quota_of_two_servers_are_refused(caller: Caller, own_pool: Database) -> None:
    async with beside(caller) as other:
        await set_quotas(own_pool, caller, {QuotaKind.STREAMS: 2, QuotaKind.WATCHERS: 1}, other)
        streams = [await open_stream(one) for one in (caller, caller)]

        async def others_are_known() -> bool:
            return (await shown(other))["streams"].used == 2

        await until(others_are_known)
        assert await refused(open_stream(other)) == QuotaRefusal(
            "streams", 2, f"organization:{caller.organization}", None
        )
        assert (await refused(open_stream(caller))).quota == "streams"
        streams[0].cancel()

        async def is_free() -> bool:
            return (await shown(other))["streams"].used == 1

        await until(is_free)
        streams.append(await open_stream(other))
        watch = caller.alerts.WatchNotifications(
            alert_service_pb2.WatchNotificationsRequest(), metadata=caller.metadata
        )
        await watch.read()
        second = caller.alerts.WatchNotifications(
            alert_service_pb2.WatchNotificationsRequest(), metadata=caller.metadata
        )
        assert (await refused(second.read())).quota == "watchers"
        for one in (*streams, watch):
            one.cancel()


async def test_streams_of_the_audit_log_count_as_watchers_on_all_servers(caller: Caller, own_pool: Database) -> None:
    async with beside(caller) as other:
        await set_quotas(own_pool, caller, only(QuotaKind.WATCHERS, 2), other)
        notifications = caller.alerts.WatchNotifications(
            alert_service_pb2.WatchNotificationsRequest(), metadata=caller.metadata
        )
        entries = watch_entries(caller)
        await notifications.read()
        await entries.read()
        expected = QuotaRefusal("watchers", 2, f"organization:{caller.organization}", None)
        assert await refused(watch_entries(caller).read()) == expected

        async def used_elsewhere(number: int) -> bool:
            return (await shown(other))["watchers"].used == number

        await until(lambda: used_elsewhere(2))
        assert await refused(watch_entries(other).read()) == expected
        entries.cancel()
        await until(lambda: used_elsewhere(1))
        again = watch_entries(other)
        assert (await again.read()).heartbeat
        for one in (notifications, again):
            one.cancel()


def watch_entries(caller: Caller) -> Any:
    """A stream of the audit log."""
    stub: Any = audit_service_pb2_grpc.AuditServiceStub(caller.server.channel)
    return stub.WatchAuditEntries(audit_service_pb2.WatchAuditEntriesRequest(), metadata=caller.metadata)


async def open_stream(caller: Caller) -> grpc.aio.StreamStreamCall[object, object]:
    """A stream that is open: it has answered a batch."""
    stream = caller.stream()
    request = alert_service_pb2.EvaluateUsageRequest()
    request.batch.events.append(caller.event("same"))
    await stream.write(request)
    assert isinstance(await stream.read(), alert_service_pb2.EvaluateUsageResponse)
    return stream  # type: ignore[return-value]


async def test_unary_usage_above_the_rate_is_refused_with_the_time_to_wait(
    caller: Caller, own_pool: Database
) -> None:
    await set_quotas(own_pool, caller, only(QuotaKind.EVENTS_PER_SECOND, 4))
    events = [caller.event(f"e{number}") for number in range(400)]
    assert (await caller.send(*events)).accepted == 400  # as a whole: the debt is 99 seconds
    found = await refused(caller.send(caller.event("more")))
    assert (found.quota, found.limit) == ("events_per_second", 4)
    assert found.retry_after is not None
    assert 0.0 < found.retry_after < 100.0
    await set_quotas(own_pool, caller, {QuotaKind.EVENTS_PER_SECOND: None})
    assert (await caller.send(caller.event("more"))).accepted == 1
    assert await caller.event_count() == 401


async def test_stream_above_the_rate_waits_and_loses_nothing(caller: Caller, own_pool: Database) -> None:
    await set_quotas(own_pool, caller, only(QuotaKind.EVENTS_PER_SECOND, 200))
    stream = caller.stream()
    loop = asyncio.get_running_loop()
    began = loop.time()
    for batch in range(6):
        request = alert_service_pb2.EvaluateUsageRequest()
        request.batch.events.extend(caller.event(f"e{batch}-{number}") for number in range(100))
        await stream.write(request)
    accepted = 0
    async with asyncio.timeout(DEADLINE):
        while accepted < 600:
            answer = await stream.read()
            assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
            accepted += answer.outcome.accepted
    # 200 at once; the sixth batch comes when the fifth is paid: 100 of debt after 500.
    assert loop.time() - began > 1.0
    stream.cancel()


async def test_requests_above_the_bytes_of_a_second_are_refused(caller: Caller, own_pool: Database) -> None:
    await set_quotas(own_pool, caller, only(QuotaKind.BYTES_PER_SECOND, 1_000))
    events = [caller.event(f"e{number}", text="x" * 200) for number in range(400)]
    assert (await caller.send(*events)).accepted == 400
    found = await refused(caller.create_only(usage_alert("1")))
    assert (found.quota, found.limit) == ("bytes_per_second", 1_000)
    assert found.retry_after is not None
    assert found.retry_after > 0.0
