"""Deliveries and their attempts, as the API lists them."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, RowMapping, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.ids import ID_BYTES, id_of
from store.postgres.counting import bounded_count
from store.tables.webhooks import attempt, delivery
from webhooks.deliveries import DeliveryStatus, Outcome, Trigger

DELIVERY_ID_PREFIX = "whd_"


@dataclass(frozen=True)
class Delivery:
    """One notification to one endpoint."""

    organization_id: int
    delivery_id: str
    endpoint_id: str
    notification_id: str
    customer_id: str
    event_type: str
    status: DeliveryStatus
    trigger: Trigger
    attempt_count: int
    create_time: datetime
    next_attempt_time: datetime | None  # unset during an attempt, and after the last one
    finish_time: datetime | None


@dataclass(frozen=True)
class Attempt:
    """One HTTP request of a delivery."""

    organization_id: int
    delivery_id: str
    attempt_number: int  # from 1
    trigger: Trigger
    start_time: datetime
    duration: timedelta
    outcome: Outcome
    http_status: int | None
    remote_address: str
    secret_sequences: tuple[int, ...]  # of the endpoint's secrets that signed it, newest first
    response_excerpt: str
    error: str


@dataclass(frozen=True)
class Filter:
    """Which deliveries to list. Unset fields do not limit the list. Times: of creation, the end not included."""

    endpoint_id: str | None = None
    notification_id: str | None = None
    statuses: tuple[DeliveryStatus, ...] = ()  # empty: every status
    customer_id: str | None = None
    event_types: tuple[str, ...] = ()  # empty: every type
    start_time: datetime | None = None
    end_time: datetime | None = None


_DELIVERY_COLUMNS = (
    delivery.c.organization_id,
    delivery.c.delivery_id,
    delivery.c.endpoint_id,
    delivery.c.notification_id,
    delivery.c.customer_id,
    delivery.c.event_type,
    delivery.c.status,
    delivery.c.trigger,
    delivery.c.attempt_count,
    delivery.c.create_time,
    delivery.c.next_attempt_time,
    delivery.c.finish_time,
)
_ATTEMPT_COLUMNS = (
    attempt.c.organization_id,
    attempt.c.delivery_id,
    attempt.c.attempt_number,
    attempt.c.trigger,
    attempt.c.start_time,
    attempt.c.duration,
    attempt.c.outcome,
    attempt.c.http_status,
    attempt.c.remote_address,
    attempt.c.secret_sequences,
    attempt.c.response_excerpt,
    attempt.c.error,
)


def delivery_id(organization_id: int, endpoint_id: str, notification_id: str) -> str:
    """The id of the one delivery of a notification to an endpoint."""
    # SHA-256 and not `digest_id`: stored deliveries have these ids, and with another id they would be sent twice.
    text = f"{organization_id}\x1f{endpoint_id}\x1f{notification_id}"
    return id_of(DELIVERY_ID_PREFIX, hashlib.sha256(text.encode()).digest()[:ID_BYTES])


async def get(connection: AsyncConnection, organization_id: int, delivery_id: str) -> Delivery | None:
    """The delivery of that id; None when there is none."""
    found = await connection.execute(
        select(*_DELIVERY_COLUMNS)
        .where(delivery.c.organization_id == organization_id, delivery.c.delivery_id == delivery_id)
        .order_by(delivery.c.finish_day.desc())  # the live row, if it was redelivered
        .limit(1)
    )
    row = found.mappings().one_or_none()
    return None if row is None else _delivery(row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    filter_: Filter | None = None,
    *,
    after: tuple[datetime, str] | None = None,
    limit: int,
    newest_first: bool = True,
) -> list[Delivery]:
    """Up to `limit` deliveries by age; `after` is the create_time and id of the last one seen."""
    age = (delivery.c.create_time, delivery.c.delivery_id)
    statement = (
        select(*_DELIVERY_COLUMNS)
        .where(*_matches(organization_id, filter_ or Filter()))
        .order_by(*(column.desc() if newest_first else column for column in age))
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(*age) < tuple_(*after) if newest_first else tuple_(*age) > tuple_(*after))
    return [_delivery(row) for row in (await connection.execute(statement)).mappings()]


async def count(connection: AsyncConnection, organization_id: int, filter_: Filter) -> int:
    """How many deliveries match; MAX_TOTAL_SIZE for that many or more."""
    return await bounded_count(connection, delivery, *_matches(organization_id, filter_))


def _matches(organization_id: int, filter_: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [delivery.c.organization_id == organization_id]
    for name in ("endpoint_id", "notification_id", "customer_id"):
        if (value := getattr(filter_, name)) is not None:
            conditions.append(delivery.c[name] == value)
    if filter_.statuses:
        conditions.append(delivery.c.status.in_(filter_.statuses))
    if filter_.event_types:
        conditions.append(delivery.c.event_type.in_(filter_.event_types))
    if filter_.start_time is not None:
        conditions.append(delivery.c.create_time >= filter_.start_time)
    if filter_.end_time is not None:
        conditions.append(delivery.c.create_time < filter_.end_time)
    return conditions


async def latest_attempts(
    connection: AsyncConnection, organization_id: int, delivery_id: str, *, limit: int
) -> list[Attempt]:
    """The latest attempts of a delivery, up to `limit`, in their order."""
    statement = (
        select(*_ATTEMPT_COLUMNS)
        .where(attempt.c.organization_id == organization_id, attempt.c.delivery_id == delivery_id)
        .order_by(attempt.c.attempt_number.desc())
        .limit(limit)
    )
    return [_attempt(row) for row in (await connection.execute(statement)).mappings()][::-1]


async def list_attempts(
    connection: AsyncConnection, organization_id: int, delivery_id: str, *, after: int = 0, limit: int
) -> list[Attempt]:
    """Up to `limit` attempts of a delivery in their order; `after` is the number of the last one seen."""
    statement = (
        select(*_ATTEMPT_COLUMNS)
        .where(
            attempt.c.organization_id == organization_id,
            attempt.c.delivery_id == delivery_id,
            attempt.c.attempt_number > after,
        )
        .order_by(attempt.c.attempt_number)
        .limit(limit)
    )
    return [_attempt(row) for row in (await connection.execute(statement)).mappings()]


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**{**row, "status": DeliveryStatus(row["status"]), "trigger": Trigger(row["trigger"])})


def _attempt(row: RowMapping) -> Attempt:
    return Attempt(
        **{
            **row,
            "trigger": Trigger(row["trigger"]),
            "outcome": Outcome(row["outcome"]),
            "secret_sequences": tuple(row["secret_sequences"]),
        }
    )
