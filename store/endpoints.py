"""Webhook endpoints: the statements behind create, get, list, update, enable, disable and delete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, null, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store import endpoint_secrets
from store.deliveries import DeliveryStatus
from store.endpoint_health import BreakerState, DisableReason
from store.endpoint_secrets import Scheme
from store.ids import random_id
from store.secrets import SecretBox, credentials_place
from store.tables.accounts import organization
from store.tables.webhooks import delivery, endpoint, endpoint_secret

ENDPOINT_ID_PREFIX = "whe_"
MAX_ENDPOINTS = 100  # of an organization, those that are disabled included
DEFAULT_MAX_IN_FLIGHT = 4  # attempts at one endpoint at a time, over all notifiers


class TooManyEndpoints(Exception):
    """The organization has MAX_ENDPOINTS already."""


class EndpointState(StrEnum):
    """Whether an endpoint gets deliveries."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


@dataclass(frozen=True)
class Settings:
    """What its owner decides of an endpoint. All of it has been checked.

    rate_per_second: attempts; None without a limit. credentials: the value of the Authorization header.
    """

    url: str
    description: str = ""
    event_types: tuple[str, ...] = ()  # empty: every notification
    condition_types: tuple[str, ...] = ()  # empty: every condition
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: str | None = field(default=None, repr=False)
    rate_per_second: Decimal | None = None
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT


@dataclass(frozen=True)
class Endpoint:
    """A URL that an organization's notifications are posted to."""

    organization_id: int
    endpoint_id: str
    url: str
    description: str
    event_types: tuple[str, ...]  # empty: every notification
    condition_types: tuple[str, ...]  # empty: every condition
    metadata: Mapping[str, str]
    headers: Mapping[str, str]
    has_credentials: bool
    rate_per_second: Decimal | None
    max_in_flight: int
    state: EndpointState
    disable_reason: DisableReason | None
    create_time: datetime
    update_time: datetime | None
    not_before: datetime | None  # the receiver asked for a pause
    breaker_state: BreakerState
    breaker_until: datetime | None
    failing_since: datetime | None
    failure_count: int
    last_success_time: datetime | None


@dataclass(frozen=True)
class CreatedEndpoint:
    """A new endpoint with what its receiver verifies with, which is shown this once."""

    endpoint: Endpoint
    secret: str = field(repr=False)


_COLUMNS = (
    endpoint.c.organization_id,
    endpoint.c.endpoint_id,
    endpoint.c.url,
    endpoint.c.description,
    endpoint.c.event_types,
    endpoint.c.condition_types,
    endpoint.c.metadata,
    endpoint.c.headers,
    endpoint.c.credentials.is_not(None).label("has_credentials"),
    endpoint.c.rate_per_second,
    endpoint.c.max_in_flight,
    endpoint.c.state,
    endpoint.c.disable_reason,
    endpoint.c.create_time,
    endpoint.c.update_time,
    endpoint.c.not_before,
    endpoint.c.breaker_state,
    endpoint.c.breaker_until,
    endpoint.c.failing_since,
    endpoint.c.failure_count,
    endpoint.c.last_success_time,
)

# What an endpoint begins with, and begins with again when it is enabled or gets another URL.
_CLEAN_RECORD: Mapping[str, Any] = {
    "not_before": None,
    "throttle_count": 0,
    "breaker_state": BreakerState.CLOSED,
    "breaker_until": None,
    "breaker_failures": 0,
    "breaker_openings": 0,
    "breaker_window": None,
    "failing_since": None,
    "failure_count": 0,
    "warned_percent": 0,
    "exhaustion_noted": False,
}


async def create(
    connection: AsyncConnection,
    organization_id: int,
    settings: Settings,
    box: SecretBox,
    *,
    scheme: Scheme = Scheme.HMAC_SHA256,
    now: datetime,
) -> CreatedEndpoint:
    """Saves an enabled endpoint with a secret of its own. Raises TooManyEndpoints."""
    # Two that come at once are counted one after the other.
    await connection.execute(
        select(organization.c.organization_id)
        .where(organization.c.organization_id == organization_id)
        .with_for_update(key_share=True)
    )
    number = await connection.scalar(
        select(func.count())
        .select_from(endpoint)
        .where(endpoint.c.organization_id == organization_id, endpoint.c.delete_time.is_(None))
    )
    if number is not None and number >= MAX_ENDPOINTS:
        raise TooManyEndpoints
    endpoint_id = random_id(ENDPOINT_ID_PREFIX)
    saved = await connection.execute(
        insert(endpoint)
        .values(
            organization_id=organization_id,
            endpoint_id=endpoint_id,
            state=EndpointState.ENABLED,
            create_time=now,
            **_values(organization_id, endpoint_id, settings, box),
        )
        .returning(*_COLUMNS)
    )
    created = _endpoint(saved.mappings().one())
    secret = await endpoint_secrets.add(connection, organization_id, endpoint_id, scheme, box, now=now)
    return CreatedEndpoint(created, secret)


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


async def update_settings(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    settings: Settings,
    fields: Sequence[str],
    box: SecretBox | None,
    *,
    now: datetime,
) -> Endpoint | None:
    """Replaces those fields of an endpoint's settings; None when there is no such endpoint.

    What waits for the endpoint is sent as the settings say when it is sent. `box` may be None when `fields` brings
    no credentials.
    """
    values = _values(organization_id, endpoint_id, settings, box, fields)
    if "url" in fields:
        values |= _CLEAN_RECORD
    return await _update(connection, organization_id, endpoint_id, values | {"update_time": now})


async def enable(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, now: datetime
) -> Endpoint | None:
    """Lets an endpoint get deliveries again, with a clean record; None when there is none.

    An endpoint that is enabled keeps its record.
    """
    found = await lock(connection, organization_id, endpoint_id)
    if found is None or found.state is EndpointState.ENABLED:
        return found
    values = {**_CLEAN_RECORD, "state": EndpointState.ENABLED, "disable_reason": None, "update_time": now}
    return await _update(connection, organization_id, endpoint_id, values)


async def disable_on_request(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, now: datetime
) -> Endpoint | None:
    """Stops deliveries to an endpoint because its owner says so; None when there is none."""
    # FOR UPDATE: see delete_endpoint.
    found = await lock(connection, organization_id, endpoint_id, against_fan_out=True)
    if found is None or found.state is EndpointState.DISABLED:
        return found
    await disable(connection, organization_id, endpoint_id, reason=DisableReason.REQUESTED)
    return await _update(connection, organization_id, endpoint_id, {"update_time": now})


async def lock(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, *, against_fan_out: bool = False
) -> Endpoint | None:
    """Locks an endpoint's row and reads it; None when there is none or it was deleted.

    Until the transaction ends no notifier claims or finishes a delivery to it; with `against_fan_out` it gets no
    new one either.
    """
    found = await connection.execute(
        select(*_COLUMNS)
        .where(
            endpoint.c.organization_id == organization_id,
            endpoint.c.endpoint_id == endpoint_id,
            endpoint.c.delete_time.is_(None),
        )
        .with_for_update(key_share=not against_fan_out)
    )
    row = found.mappings().one_or_none()
    return None if row is None else _endpoint(row)


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


async def _update(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, values: Mapping[str, Any]
) -> Endpoint | None:
    saved = await connection.execute(
        update(endpoint)
        .where(
            endpoint.c.organization_id == organization_id,
            endpoint.c.endpoint_id == endpoint_id,
            endpoint.c.delete_time.is_(None),
        )
        .values(**values)
        .returning(*_COLUMNS)
    )
    row = saved.mappings().one_or_none()
    return None if row is None else _endpoint(row)


def _values(
    organization_id: int,
    endpoint_id: str,
    settings: Settings,
    box: SecretBox | None,
    fields: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The columns of an endpoint's settings, or of some fields of them."""
    values: dict[str, Any] = {
        "url": settings.url,
        "description": settings.description,
        "event_types": list(settings.event_types),
        "condition_types": list(settings.condition_types),
        "metadata": dict(settings.metadata),
        "headers": dict(settings.headers),
        "rate_per_second": settings.rate_per_second,
        "max_in_flight": settings.max_in_flight,
    }
    if fields is not None:
        values = {name: value for name, value in values.items() if name in fields}
    if fields is None or "credentials" in fields:
        values |= _sealed_credentials(organization_id, endpoint_id, settings.credentials, box)
    return values


def _sealed_credentials(
    organization_id: int, endpoint_id: str, credentials: str | None, box: SecretBox | None
) -> dict[str, Any]:
    if credentials is None:
        return {"credentials": null(), "credentials_key_id": null()}
    if box is None:
        raise ValueError("credentials are not stored without a key to seal them with")
    sealed = box.seal(credentials.encode(), credentials_place(organization_id, endpoint_id))
    return {"credentials": sealed, "credentials_key_id": box.key_id}


async def reencrypt_credentials(
    connection: AsyncConnection, box: SecretBox, after: tuple[int, str], limit: int
) -> tuple[int, tuple[int, str] | None]:
    """Seals the credentials of up to `limit` endpoints of any organization with the current key.

    `after` is the key of the last row seen. Returns how many there were, and the key to go on after; None at the
    end. Raises store.secrets.CannotOpen.
    """
    key = tuple_(endpoint.c.organization_id, endpoint.c.endpoint_id)
    rows = (
        await connection.execute(
            select(endpoint.c.organization_id, endpoint.c.endpoint_id, endpoint.c.credentials)
            .where(
                endpoint.c.credentials.is_not(None),
                endpoint.c.credentials_key_id != box.key_id,
                key > tuple_(*after),
            )
            .order_by(endpoint.c.organization_id, endpoint.c.endpoint_id)
            .limit(limit)
            .with_for_update(key_share=True)
        )
    ).all()
    for row in rows:
        place = credentials_place(row.organization_id, row.endpoint_id)
        await connection.execute(
            update(endpoint)
            .where(endpoint.c.organization_id == row.organization_id, endpoint.c.endpoint_id == row.endpoint_id)
            .values(credentials=box.seal(box.open(row.credentials, place), place), credentials_key_id=box.key_id)
        )
    return len(rows), (rows[-1].organization_id, rows[-1].endpoint_id) if rows else None


def _endpoint(row: RowMapping) -> Endpoint:
    reason = row["disable_reason"]
    return Endpoint(
        **{
            **row,
            "event_types": tuple(row["event_types"]),
            "condition_types": tuple(row["condition_types"]),
            "state": EndpointState(row["state"]),
            "disable_reason": None if reason is None else DisableReason(reason),
            "breaker_state": BreakerState(row["breaker_state"]),
        },
    )
