"""Webhook endpoints: the statements behind create, get, list and update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.quotas import QuotaKind
from store.endpoints import secrets as endpoint_secrets
from store.endpoints.credentials import sealed_credentials
from store.endpoints.rows import (
    CLEAN_RECORD,
    COLUMNS,
    Endpoint,
    EndpointState,
    Settings,
    change,
    endpoint_from,
    is_endpoint,
)
from store.identity.quotas import QuotaReached
from store.ids import random_id
from store.postgres.channels import announce_due_deliveries
from store.postgres.counting import bounded_count
from store.tables.accounts import organization
from store.tables.webhooks import endpoint
from webhooks.health import DisableReason
from webhooks.secret_box import SecretBox

ENDPOINT_ID_PREFIX = "whe_"
MAX_ENDPOINTS = 100  # of an organization, those that are disabled included

# Settings whose change may let waiting deliveries be sent.
_OPENING = frozenset({"url", "rate_per_second", "max_in_flight"})


class TooManyEndpoints(Exception):
    """The organization has MAX_ENDPOINTS endpoints already."""


@dataclass(frozen=True)
class NewEndpoint:
    """An endpoint to create. All values have been checked. signing_key: "whsec_…" or "whsk_…"."""

    settings: Settings
    signing_key: str = field(repr=False)
    state: EndpointState = EndpointState.ENABLED


@dataclass(frozen=True)
class CreatedEndpoint:
    """A new endpoint with the key that its receiver verifies with. The key is shown only once."""

    endpoint: Endpoint
    secret: str = field(repr=False)


@dataclass(frozen=True)
class EndpointFilter:
    """Which endpoints to list. Empty fields do not limit the list. Times: of creation, the end not included."""

    states: tuple[EndpointState, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)  # all of them, with these values
    display_name_prefix: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


async def create(
    connection: AsyncConnection,
    organization_id: int,
    new: NewEndpoint,
    box: SecretBox,
    *,
    now: datetime,
    quota: int | None = None,
) -> CreatedEndpoint:
    """Saves an endpoint with its signing key. quota: of the organization's endpoints.

    Raises TooManyEndpoints and QuotaReached.
    """
    # The lock makes concurrent requests count one after the other.
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
    if number is not None and quota is not None and number >= quota:
        raise QuotaReached(QuotaKind.ENDPOINTS, quota)
    endpoint_id = random_id(ENDPOINT_ID_PREFIX)
    saved = await connection.execute(
        insert(endpoint)
        .values(
            organization_id=organization_id,
            endpoint_id=endpoint_id,
            state=new.state,
            disable_reason=DisableReason.REQUESTED if new.state is EndpointState.DISABLED else None,
            create_time=now,
            **_values(organization_id, endpoint_id, new.settings, box),
        )
        .returning(*COLUMNS)
    )
    created = endpoint_from(saved.mappings().one())
    secret = await endpoint_secrets.add(connection, organization_id, endpoint_id, new.signing_key, box, now=now)
    return CreatedEndpoint(created, secret)


async def get(connection: AsyncConnection, organization_id: int, endpoint_id: str) -> Endpoint | None:
    """The endpoint of that id; None when there is none or it was deleted."""
    found = await connection.execute(select(*COLUMNS).where(is_endpoint(organization_id, endpoint_id)))
    row = found.mappings().one_or_none()
    return None if row is None else endpoint_from(row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    filter_: EndpointFilter,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
    newest_first: bool = False,
) -> list[Endpoint]:
    """Up to `limit` endpoints by age; `after` is the create_time and id of the last one seen."""
    age = (endpoint.c.create_time, endpoint.c.endpoint_id)
    statement = (
        select(*COLUMNS)
        .where(*_matches(organization_id, filter_))
        .order_by(*(column.desc() if newest_first else column for column in age))
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(*age) < tuple_(*after) if newest_first else tuple_(*age) > tuple_(*after))
    return [endpoint_from(row) for row in (await connection.execute(statement)).mappings()]


async def count(connection: AsyncConnection, organization_id: int, filter_: EndpointFilter) -> int:
    """How many endpoints match."""
    return await bounded_count(connection, endpoint, *_matches(organization_id, filter_))


def _matches(organization_id: int, filter_: EndpointFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        endpoint.c.organization_id == organization_id,
        endpoint.c.delete_time.is_(None),
    ]
    if filter_.states:
        conditions.append(endpoint.c.state.in_(filter_.states))
    if filter_.labels:
        conditions.append(endpoint.c.labels.contains(dict(filter_.labels)))
    if filter_.display_name_prefix:
        conditions.append(endpoint.c.display_name.startswith(filter_.display_name_prefix, autoescape=True))
    if filter_.start_time is not None:
        conditions.append(endpoint.c.create_time >= filter_.start_time)
    if filter_.end_time is not None:
        conditions.append(endpoint.c.create_time < filter_.end_time)
    return conditions


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
    """Replaces the `fields` of an endpoint's settings; None when there is no such endpoint.

    Waiting deliveries are sent with the new settings. `box` may be None when `fields` sets no credentials.
    """
    values = _values(organization_id, endpoint_id, settings, box, fields)
    if "url" in fields:
        values |= CLEAN_RECORD
    if not _OPENING.isdisjoint(fields):
        await announce_due_deliveries(connection)
    return await change(connection, organization_id, endpoint_id, values | {"update_time": now})


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
        "display_name": settings.display_name,
        "labels": dict(settings.labels),
        "event_types": list(settings.event_types),
        "condition_types": list(settings.condition_types),
        "headers": dict(settings.headers),
        "rate_per_second": settings.rate_per_second,
        "max_in_flight": settings.max_in_flight,
    }
    if fields is not None:
        values = {name: value for name, value in values.items() if name in fields}
    if fields is None or "credentials" in fields:
        values |= sealed_credentials(organization_id, endpoint_id, settings.credentials, box)
    return values
