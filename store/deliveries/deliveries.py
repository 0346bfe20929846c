"""Deliveries and their attempts, as the API lists them."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from psycopg.rows import dict_row
from sqlalchemy import ARRAY, any_, select
from sqlalchemy import cast as cast_to
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.ids import ID_BYTES, id_of
from store.postgres import bounded_pages
from store.postgres.bounded_pages import BoundedPage, ListScan
from store.postgres.counting import MAX_TOTAL_SIZE
from store.postgres.database import driver
from store.tables.base import Identifier
from store.tables.webhooks import attempt, delivery
from webhooks.deliveries import AttemptOutcome, DeliveryStatus, Trigger

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
    outcome: AttemptOutcome
    http_status: int | None
    remote_address: str
    secret_sequences: tuple[int, ...]  # of the endpoint's secrets that signed it, newest first
    response_excerpt: str
    error: str


@dataclass(frozen=True)
class DeliveryFilter:
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
    return None if row is None else _delivery(cast("Mapping[str, Any]", row))


Position = tuple[datetime, str]  # create_time and id of a delivery


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    filter_: DeliveryFilter | None = None,
    *,
    after: Position | None = None,
    limit: int,
    newest_first: bool = True,
    most_examined: int | None = None,
) -> BoundedPage[Delivery, Position]:
    """Up to `limit` deliveries after a position, by age.

    most_examined: deliveries that are read at most; by default MAX_EXAMINED of `bounded_pages`. When there are
    more, a page may have fewer than `limit`.
    """
    scan = _scan(organization_id, filter_ or DeliveryFilter(), newest_first=newest_first)
    return await bounded_pages.read(
        connection, organization_id, scan, _delivery, after=after, limit=limit, most_examined=most_examined
    )


async def of_notifications(
    connection: AsyncConnection, organization_id: int, notification_ids: Collection[str], *, limit: int
) -> list[Delivery]:
    """Up to `limit` deliveries of these notifications, the newest first, each once."""
    statement = (
        select(*_DELIVERY_COLUMNS)
        .where(
            delivery.c.organization_id == organization_id,
            delivery.c.notification_id == any_(cast_to(list(notification_ids), ARRAY(Identifier))),
        )
        .order_by(delivery.c.create_time.desc(), delivery.c.delivery_id, delivery.c.finish_day.desc())
        .limit(limit)
    )
    found: dict[str, Delivery] = {}
    for row in (await connection.execute(statement)).mappings():
        # Of a delivery that was redelivered, the row with the latest day is the present one.
        found.setdefault(row["delivery_id"], _delivery(cast("Mapping[str, Any]", row)))
    return list(found.values())


async def count(
    connection: AsyncConnection, organization_id: int, filter_: DeliveryFilter, most: int = MAX_TOTAL_SIZE
) -> int:
    """How many deliveries match; `most` for that many or more."""
    return await bounded_pages.count(connection, _scan(organization_id, filter_), most)


# Conditions that an index answers before the order by age, and conditions that are checked row by row.
_INDEXED = {
    "notification_id": "notification_id = %(notification_id)s",
    "endpoint_id": "endpoint_id = %(endpoint_id)s",
    "start_time": "create_time >= %(start_time)s",
    "end_time": "create_time < %(end_time)s",
}
_CHECKED = {
    "customer_id": "customer_id = %(customer_id)s",
    "statuses": "status = ANY(%(statuses)s)",
    "event_types": "event_type = ANY(%(event_types)s)",
}


def _scan(organization_id: int, filter_: DeliveryFilter, *, newest_first: bool = False) -> ListScan:
    wanted = {name: value for name in (*_INDEXED, *_CHECKED) if (value := getattr(filter_, name)) not in (None, ())}
    parameters = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    conditions = ["organization_id = %(organization_id)s", *(_INDEXED[name] for name in wanted if name in _INDEXED)]
    if filter_.statuses and DeliveryStatus.PENDING not in filter_.statuses:
        conditions.append("finish_day < 'infinity'")  # no delivery that waits is in these partitions
    elif set(filter_.statuses) == {DeliveryStatus.PENDING}:
        conditions.append("finish_day = 'infinity'")
    return ListScan(
        table="delivery",
        columns=tuple(column.name for column in _DELIVERY_COLUMNS),
        order=("create_time", "delivery_id"),
        ranges=[" AND ".join(conditions)],
        filters=[_CHECKED[name] for name in wanted if name in _CHECKED],
        parameters={"organization_id": organization_id, **parameters},
        newest_first=newest_first,
    )


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
    return [_attempt(cast("Mapping[str, Any]", row)) for row in (await connection.execute(statement)).mappings()][
        ::-1
    ]


# The latest attempts of each of some deliveries. The time leaves out the partitions of earlier days.
_LATEST_OF_EACH = """
SELECT a.* FROM unnest(%(delivery_ids)s::text[]) AS i (delivery_id), LATERAL (
    SELECT {columns} FROM attempt
    WHERE organization_id = %(organization_id)s AND delivery_id = i.delivery_id COLLATE "C"
        AND start_time >= %(since)s
    ORDER BY attempt_number DESC LIMIT %(each)s
) AS a
ORDER BY a.delivery_id, a.attempt_number
"""


async def latest_of_each(
    connection: AsyncConnection, organization_id: int, deliveries: Sequence[Delivery], *, each: int
) -> dict[str, list[Attempt]]:
    """The latest attempts of deliveries, up to `each` of one, in their order, by delivery id."""
    if not deliveries:
        return {}
    raw = await driver(connection)
    columns = ", ".join(column.name for column in _ATTEMPT_COLUMNS)
    cursor = await raw.cursor(row_factory=dict_row).execute(
        _LATEST_OF_EACH.format(columns=columns).encode(),
        {
            "organization_id": organization_id,
            "delivery_ids": [one.delivery_id for one in deliveries],
            "since": min(one.create_time for one in deliveries),
            "each": each,
        },
    )
    found: dict[str, list[Attempt]] = {}
    for row in await cursor.fetchall():
        found.setdefault(row["delivery_id"], []).append(_attempt(row))
    return found


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
    return [_attempt(cast("Mapping[str, Any]", row)) for row in (await connection.execute(statement)).mappings()]


def _delivery(row: Mapping[str, Any]) -> Delivery:
    columns = {column.name: row[column.name] for column in _DELIVERY_COLUMNS}
    columns |= {"status": DeliveryStatus(row["status"]), "trigger": Trigger(row["trigger"])}
    return Delivery(**columns)


def _attempt(row: Mapping[str, Any]) -> Attempt:
    return Attempt(
        **{
            **row,
            "trigger": Trigger(row["trigger"]),
            "outcome": AttemptOutcome(row["outcome"]),
            "secret_sequences": tuple(row["secret_sequences"]),
        }
    )
