"""Enables, disables and deletes endpoints, each under the lock of its row."""

from datetime import datetime

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.endpoints.locks import stop_fan_outs
from store.endpoints.rows import CLEAN_RECORD, COLUMNS, Endpoint, EndpointState, change, endpoint_from, is_endpoint
from store.postgres.channels import announce_due_deliveries
from store.postgres.database import driver
from store.tables.webhooks import delivery, endpoint, endpoint_secret
from webhooks.deliveries import DeliveryStatus
from webhooks.health import DisableReason


async def lock(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, against_fan_out: bool = False
) -> Endpoint | None:
    """Locks an endpoint's row and reads it; None when there is none or it was deleted.

    Until the transaction ends no notifier claims or finishes a delivery to it; with `against_fan_out` it gets no
    new one either.
    """
    found = await connection.execute(
        select(*COLUMNS)
        .where(is_endpoint(organization_id, endpoint_id))
        .with_for_update(key_share=not against_fan_out)
    )
    row = found.mappings().one_or_none()
    if row is not None and against_fan_out:
        await stop_fan_outs(await driver(connection), [organization_id])
    return None if row is None else endpoint_from(row)


async def enable(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, now: datetime
) -> Endpoint | None:
    """Lets an endpoint get deliveries again, with the health of a new one; None when there is no such endpoint.

    An endpoint that is enabled already keeps its health.
    """
    found = await lock(connection, organization_id, endpoint_id)
    if found is None or found.state is EndpointState.ENABLED:
        return found
    values = {**CLEAN_RECORD, "state": EndpointState.ENABLED, "disable_reason": None, "update_time": now}
    await announce_due_deliveries(connection)
    return await change(connection, organization_id, endpoint_id, values)


async def disable_on_request(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, now: datetime
) -> Endpoint | None:
    """Stops deliveries to an endpoint because a caller asked for it; None when there is no such endpoint."""
    found = await lock(connection, organization_id, endpoint_id, against_fan_out=True)
    if found is None or found.state is EndpointState.DISABLED:
        return found
    await disable(connection, organization_id, endpoint_id, reason=DisableReason.REQUESTED)
    return await change(connection, organization_id, endpoint_id, {"update_time": now})


async def disable(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    *,
    reason: DisableReason = DisableReason.GONE,
    delete_time: datetime | None = None,
) -> None:
    """Stops deliveries to an endpoint and cancels those that wait.

    The caller holds the lock of the endpoint's row against fan-outs.
    """
    await connection.execute(
        update(endpoint)
        .where(endpoint.c.organization_id == organization_id, endpoint.c.endpoint_id == endpoint_id)
        .values(state=EndpointState.DISABLED, disable_reason=reason, delete_time=delete_time)
    )
    await connection.execute(
        update(delivery)
        .where(
            delivery.c.organization_id == organization_id,
            delivery.c.endpoint_id == endpoint_id,
            delivery.c.next_attempt_time.is_not(None),
        )
        .values(
            status=DeliveryStatus.CANCELLED,
            next_attempt_time=null(),
            finish_time=func.now(),
            finish_day=func.current_date(),
        )
    )


async def delete_endpoint(connection: AsyncConnection, organization_id: int, endpoint_id: str, now: datetime) -> bool:
    """Deletes an endpoint with its secrets, credentials and headers, and cancels the deliveries that wait.

    Returns False when there is no such endpoint. An attempt that is being made now is recorded when it ends, but its
    delivery is not attempted again.
    """
    if await lock(connection, organization_id, endpoint_id, against_fan_out=True) is None:
        return False
    await disable(connection, organization_id, endpoint_id, reason=DisableReason.REQUESTED, delete_time=now)
    # The row stays, because its deliveries refer to it. Everything secret is deleted.
    await connection.execute(
        update(endpoint)
        .where(endpoint.c.organization_id == organization_id, endpoint.c.endpoint_id == endpoint_id)
        .values(headers={}, credentials=null(), credentials_key_id=null())
    )
    await connection.execute(
        delete(endpoint_secret).where(
            endpoint_secret.c.organization_id == organization_id,
            endpoint_secret.c.endpoint_id == endpoint_id,
        )
    )
    return True
