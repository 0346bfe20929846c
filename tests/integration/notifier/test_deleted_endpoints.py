"""An endpoint that is deleted: its deliveries are cancelled, those that are being sent end."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from store.deliveries import leases, outbox
from store.deliveries.claims import Claim
from store.deliveries.results import AttemptRecord
from store.endpoints import endpoints, lifecycle
from store.endpoints.rows import EndpointState
from store.tables.webhooks import endpoint_secret
from tests.support.notifier.delivery_queue import (
    claim,
    counters_match,
    delivered,
    failed,
    fan_out,
    record,
    release_expired,
)
from tests.support.notifier.house import House
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock
from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import HealthSignal


async def test_a_deleted_endpoint_cancels_what_waits_and_lets_end_what_is_sent(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    kept = await house.endpoint("https://example.com/kept", ("alert.resolved",))
    await house.notify(6)
    await fan_out(house)
    succeeds, fails, dies, is_given_back = await claim(house)
    assert await delete(house, created.endpoint.endpoint_id)
    assert not await delete(house, created.endpoint.endpoint_id)

    by_status = Counter(item.status for item in await house.deliveries())
    assert by_status == {DeliveryStatus.CANCELLED: 2, DeliveryStatus.PENDING: 4}
    await record(house, [delivered(succeeds), failed(fails)])
    async with house.database.transaction() as connection:
        await leases.release(connection, [is_given_back], delay=timedelta(0))
    await house.expire_leases()
    await release_expired(house)
    statuses = {item.delivery_id: item.status for item in await house.deliveries()}
    assert statuses[succeeds.delivery_id] is DeliveryStatus.DELIVERED
    for cut in (fails, dies, is_given_back):
        assert statuses[cut.delivery_id] is DeliveryStatus.CANCELLED
    assert [a.outcome for a in await house.attempts(fails.delivery_id)] == [AttemptOutcome.SERVER_ERROR]

    await house.notify()
    assert await fan_out(house) == outbox.FanOut(taken=1, created=0)
    assert await claim(house) == []
    assert await counters_match(house)
    async with house.database.transaction() as connection:
        left = await connection.scalars(select(endpoint_secret.c.endpoint_id))
        assert left.all() == [kept.endpoint.endpoint_id]


async def delete(house: House, endpoint_id: str) -> bool:
    async with house.database.transaction() as connection:
        return await lifecycle.delete_endpoint(connection, house.organization_id, endpoint_id, house.clock.now())


async def test_an_endpoint_deleted_while_its_rows_are_fanned_out_leaves_none_waiting(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    await house.notify(3)
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 10)
        deleting = asyncio.create_task(delete(house, created.endpoint.endpoint_id))
        # The delete has to wait for this transaction; give it every chance not to.
        done, _ = await asyncio.wait([deleting], timeout=0.3)
        assert not done
    assert await deleting
    assert {item.status for item in await house.deliveries()} == {DeliveryStatus.CANCELLED}


@pytest.mark.parametrize("by_request", [True, False])
async def test_an_endpoint_disabled_while_its_rows_are_fanned_out_leaves_none_waiting(
    house: House, *, by_request: bool
) -> None:
    endpoint_id = (await house.endpoint("https://example.com/hook")).endpoint.endpoint_id
    await house.notify()
    await fan_out(house)
    [claimed] = await claim(house)
    await house.notify(3)
    async with house.database.transaction() as connection:
        await outbox.fan_out(connection, 10)
        disables: Coroutine[Any, Any, object]
        disables = disable(house, endpoint_id) if by_request else record(house, [gone(claimed)])
        disabling = asyncio.create_task(disables)
        await until_it_waits_for_a_lock(house.database, disabling)
    await disabling
    statuses = Counter(item.status for item in await house.deliveries())
    assert statuses[DeliveryStatus.CANCELLED] == 3
    assert await claim(house) == []


async def test_fan_out_gives_nothing_to_an_endpoint_that_is_being_disabled(house: House) -> None:
    endpoint_id = (await house.endpoint("https://example.com/hook")).endpoint.endpoint_id
    await house.notify(3)
    async with house.database.transaction() as connection:
        await lifecycle.disable_on_request(connection, house.organization_id, endpoint_id, now=house.clock.now())
        fanning = asyncio.create_task(fan_out(house))
        await until_it_waits_for_a_lock(house.database, fanning)
    assert await fanning == outbox.FanOut(taken=3, created=0)


async def disable(house: House, endpoint_id: str) -> None:
    async with house.database.transaction() as connection:
        await lifecycle.disable_on_request(connection, house.organization_id, endpoint_id, now=house.clock.now())


def gone(claim: Claim) -> AttemptRecord:
    """An attempt that the receiver answered with 410."""
    return dataclasses.replace(
        failed(claim), outcome=AttemptOutcome.GONE, status=DeliveryStatus.FAILED, delay=None, signal=HealthSignal.GONE
    )


async def test_an_endpoint_that_is_gone_stays_visible_as_disabled(house: House) -> None:
    created = await house.endpoint("https://example.com/hook")
    await house.notify(6)
    await fan_out(house)
    first, other, *_ = await claim(house)
    await record(house, [gone(first), failed(other)])
    statuses = Counter(item.status for item in await house.deliveries())
    assert statuses == {
        DeliveryStatus.FAILED: 1,
        DeliveryStatus.CANCELLED: 3,  # two that waited, and the failed one that would have been tried again
        DeliveryStatus.PENDING: 2,  # still leased
    }
    async with house.database.transaction() as connection:
        shown = await endpoints.get(connection, house.organization_id, created.endpoint.endpoint_id)
    assert shown is not None
    assert shown.state is EndpointState.DISABLED
    assert await counters_match(house)
