"""Whether an endpoint gets deliveries: enabled, disabled and deleted, each under the lock of its row."""

from datetime import datetime

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.endpoints.rows import CLEAN_RECORD, COLUMNS, Endpoint, EndpointState, change, endpoint_from
from store.postgres.channels import announce_due_deliveries
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
        .where(
            endpoint.c.organization_id == organization_id,
            endpoint.c.endpoint_id == endpoint_id,
            endpoint.c.delete_time.is_(None),
        )
        .with_for_update(key_share=not against_fan_out)
    )
    row = found.mappings().one_or_none()
    return None if row is None else endpoint_from(row)


async def enable(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, now: datetime
) -> Endpoint | None:
    """Lets an endpoint get deliveries again, with a clean record; None when there is none.

    An endpoint that is enabled keeps its record.
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
    """Stops deliveries to an endpoint because its owner says so; None when there is none."""
    # FOR UPDATE: see `delete_endpoint`.
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
    """Stops deliveries to an endpoint and cancels what waits for it.

    The caller holds the endpoint's row FOR UPDATE.
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
    """Deletes an endpoint, its secrets, credentials and headers with it, and cancels what waits for it.

    Returns False when there is none.

    What a notifier is sending at this moment is recorded as usual when it ends, but not tried again.
    """
    # FOR UPDATE waits for a fan-out that has read the endpoint as enabled (it holds FOR KEY SHARE): its rows
    # are then there to be cancelled. Without it they would be written after the cancelling, and wait forever.
    locked = await connection.scalar(
        select(endpoint.c.endpoint_id)
        .where(
            endpoint.c.organization_id == organization_id,
            endpoint.c.endpoint_id == endpoint_id,
            endpoint.c.delete_time.is_(None),
        )
        .with_for_update()
    )
    if locked is None:
        return False
    await disable(connection, organization_id, endpoint_id, reason=DisableReason.REQUESTED, delete_time=now)
    # The row stays for the sake of its deliveries; nothing that is secret does.
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
