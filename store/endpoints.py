"""Webhook endpoints: the statements behind create, get, list and delete."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import RowMapping, delete, func, insert, null, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries import DeliveryStatus
from store.ids import random_id
from store.tables.webhooks import delivery, endpoint, endpoint_secret

ENDPOINT_ID_PREFIX = "whe_"
SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32


class EndpointState(StrEnum):
    """Whether an endpoint gets deliveries."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


@dataclass(frozen=True)
class Endpoint:
    """A URL that an organization's notifications are posted to."""

    organization_id: int
    endpoint_id: str
    url: str
    description: str
    event_types: tuple[str, ...]  # empty: every type
    state: EndpointState
    create_time: datetime


@dataclass(frozen=True)
class CreatedEndpoint:
    """A new endpoint with its secret, which is shown this once."""

    endpoint: Endpoint
    secret: str = field(repr=False)


_COLUMNS = (
    endpoint.c.organization_id,
    endpoint.c.endpoint_id,
    endpoint.c.url,
    endpoint.c.description,
    endpoint.c.event_types,
    endpoint.c.state,
    endpoint.c.create_time,
)


async def create(
    connection: AsyncConnection,
    organization_id: int,
    *,
    url: str,
    description: str,
    event_types: Sequence[str],
    now: datetime,
) -> CreatedEndpoint:
    """Saves an enabled endpoint with a secret of its own. The URL has been checked by the caller."""
    created = CreatedEndpoint(
        Endpoint(
            organization_id=organization_id,
            endpoint_id=random_id(ENDPOINT_ID_PREFIX),
            url=url,
            description=description,
            event_types=tuple(event_types),
            state=EndpointState.ENABLED,
            create_time=now,
        ),
        secret=SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
    )
    await connection.execute(
        insert(endpoint).values(
            organization_id=organization_id,
            endpoint_id=created.endpoint.endpoint_id,
            url=url,
            description=description,
            event_types=list(event_types),
            state=EndpointState.ENABLED,
            create_time=now,
        )
    )
    await connection.execute(
        insert(endpoint_secret).values(
            organization_id=organization_id,
            endpoint_id=created.endpoint.endpoint_id,
            sequence=1,
            secret=created.secret,
            create_time=now,
        )
    )
    return created


async def get(connection: AsyncConnection, organization_id: int, endpoint_id: str) -> Endpoint | None:
    """The endpoint of that id; None when there is none or it was deleted."""
    found = await connection.execute(
        select(*_COLUMNS).where(
            endpoint.c.organization_id == organization_id,
            endpoint.c.endpoint_id == endpoint_id,
            endpoint.c.delete_time.is_(None),
        )
    )
    row = found.mappings().one_or_none()
    return None if row is None else _endpoint(row)


async def list_page(
    connection: AsyncConnection, organization_id: int, *, after: tuple[datetime, str] | None, limit: int
) -> list[Endpoint]:
    """Up to `limit` endpoints, oldest first; `after` is the create_time and id of the last one seen."""
    key = tuple_(endpoint.c.create_time, endpoint.c.endpoint_id)
    statement = (
        select(*_COLUMNS)
        .where(endpoint.c.organization_id == organization_id, endpoint.c.delete_time.is_(None))
        .order_by(endpoint.c.create_time, endpoint.c.endpoint_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(key > tuple_(*after))
    return [_endpoint(row) for row in (await connection.execute(statement)).mappings()]


async def delete_endpoint(connection: AsyncConnection, organization_id: int, endpoint_id: str, now: datetime) -> bool:
    """Deletes an endpoint, its secrets with it, and cancels what waits for it; False when there is none.

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
    await disable(connection, organization_id, endpoint_id, delete_time=now)
    await connection.execute(
        delete(endpoint_secret).where(
            endpoint_secret.c.organization_id == organization_id,
            endpoint_secret.c.endpoint_id == endpoint_id,
        )
    )
    return True


async def disable(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    *,
    delete_time: datetime | None = None,
) -> None:
    """Stops deliveries to an endpoint and cancels what waits for it.

    The caller holds the endpoint's row FOR UPDATE.
    """
    await connection.execute(
        update(endpoint)
        .where(endpoint.c.organization_id == organization_id, endpoint.c.endpoint_id == endpoint_id)
        .values(state=EndpointState.DISABLED, delete_time=delete_time)
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


def _endpoint(row: RowMapping) -> Endpoint:
    return Endpoint(
        **{**row, "event_types": tuple(row["event_types"]), "state": EndpointState(row["state"])},
    )
