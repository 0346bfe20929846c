"""The fan-out: outbox rows become deliveries, one for each endpoint that wants them."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries import cluster_outbox
from store.deliveries.deliveries import delivery_id
from store.deliveries.queue import SETTINGS
from store.endpoints.locks import share_fan_outs
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import driver
from store.postgres.distributed import Forms, on_cluster
from store.postgres.listening import listen
from webhooks.operator_events import is_operator_event


@dataclass(frozen=True)
class FanOut:
    """What one fan-out did."""

    taken: int  # outbox rows that it deleted
    created: int  # deliveries that it made


# Of rows of several nodes, the numbers say nothing.
OLDEST_TIME = Forms(
    b"SELECT create_time FROM outbox ORDER BY outbox_id LIMIT 1",
    b"SELECT create_time FROM outbox ORDER BY create_time LIMIT 1",
)

# The first rows, never "those after the last one seen": identity values are given before their transactions commit,
# so a row with a low number may appear after a row with a higher one was taken.
#
# MATERIALIZED: otherwise a plan may choose the rows again for each row that it reads, and take more than the limit.
_TAKE = text("""
WITH oldest AS MATERIALIZED (
    SELECT ctid AS row_ctid FROM outbox ORDER BY outbox_id LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM outbox
USING oldest
WHERE outbox.ctid = oldest.row_ctid
RETURNING organization_id, customer_id, notification_id, event_type, condition_type
""")

# The transaction shares the lock of the organizations' fan-outs, so that these endpoints stay enabled.
_ENDPOINTS = b"""
SELECT organization_id, endpoint_id, event_types, condition_types
FROM endpoint
WHERE organization_id = ANY (CAST(%(organizations)s AS bigint[])) AND state = 'ENABLED'
  AND (event_types = '{}' OR event_types && CAST(%(event_types)s AS text[]))
ORDER BY organization_id, endpoint_id
"""

# The endpoints that operator events are about. They get no delivery of these: for an endpoint that fails it would be
# one more delivery that fails.
_SUBJECTS = text("""
SELECT organization_id, event_id, endpoint_id
FROM operator_event
JOIN unnest(CAST(:organizations AS bigint[]), CAST(:events AS text[])) AS wanted (organization_id, event_id)
USING (organization_id, event_id)
""")

# The columns are sent as text with tabs between the values, which no id contains: the driver would write arrays value
# by value.
_ADD = text("""
INSERT INTO delivery_live (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
                           status, create_time, next_attempt_time)
SELECT organization_id, delivery_id, endpoint_id, notification_id,
       coalesce(customer_id, ''),  -- of a single empty one the array is empty
       event_type, 'PENDING', now(), now()
FROM unnest(
    CAST(string_to_array(:organizations, E'\t') AS bigint[]), string_to_array(:deliveries, E'\t'),
    string_to_array(:endpoints, E'\t'), string_to_array(:notifications, E'\t'),
    string_to_array(:customers, E'\t'), string_to_array(:event_types, E'\t')
) AS fresh (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type)
ON CONFLICT DO NOTHING
""")


async def fan_out(connection: AsyncConnection, limit: int) -> FanOut:
    """Turns up to `limit` outbox rows into deliveries, in the caller's transaction."""
    await connection.execute(text(SETTINGS))
    if on_cluster(await driver(connection)):
        taken = await cluster_outbox.take(connection, limit)
    else:
        taken = (await connection.execute(_TAKE, {"limit": limit})).all()
    if not taken:
        return FanOut(0, 0)
    endpoints = await _enabled_endpoints(connection, taken)
    subjects = await _subjects(connection, [row for row in taken if is_operator_event(row.event_type)])
    # There are few kinds of rows, so each kind is compared with the filters of the endpoints only once.
    wanting: dict[tuple[int, str, str], list[str]] = {}
    fresh: list[tuple[Row[Any], str]] = []
    for row in taken:
        kind = (row.organization_id, row.event_type, row.condition_type)
        if (wanted_by := wanting.get(kind)) is None:
            wanted_by = wanting[kind] = [
                endpoint.endpoint_id
                for endpoint in endpoints.get(row.organization_id, [])
                if wants(endpoint, row.event_type, row.condition_type)
            ]
        subject = subjects.get((row.organization_id, row.notification_id))
        fresh += [(row, endpoint_id) for endpoint_id in wanted_by if endpoint_id != subject]
    if fresh:
        await connection.execute(
            _ADD,
            {
                "organizations": "\t".join(str(row.organization_id) for row, _ in fresh),
                "deliveries": "\t".join(
                    delivery_id(row.organization_id, endpoint_id, row.notification_id) for row, endpoint_id in fresh
                ),
                "endpoints": "\t".join(endpoint_id for _, endpoint_id in fresh),
                "notifications": "\t".join(row.notification_id for row, _ in fresh),
                "customers": "\t".join(row.customer_id for row, _ in fresh),
                "event_types": "\t".join(row.event_type for row, _ in fresh),
            },
        )
    return FanOut(taken=len(taken), created=len(fresh))


async def _enabled_endpoints(connection: AsyncConnection, taken: Sequence[Row[Any]]) -> dict[int, list[Any]]:
    """The endpoints that may want outbox rows, by organization; they stay enabled until the transaction ends."""
    organizations = sorted({row.organization_id for row in taken})
    event_types = sorted({row.event_type for row in taken})
    raw = await driver(connection)
    cursor: psycopg.AsyncCursor[Any] = raw.cursor(row_factory=namedtuple_row)
    async with raw.pipeline():
        await share_fan_outs(raw, organizations)
        await cursor.execute(_ENDPOINTS, {"organizations": organizations, "event_types": event_types})
    endpoints: dict[int, list[Any]] = {}
    for row in await cursor.fetchall():
        endpoints.setdefault(row.organization_id, []).append(row)
    return endpoints


class Filters(Protocol):
    """The filters of an endpoint; an empty one lets everything pass."""

    @property
    def event_types(self) -> Sequence[str]: ...

    @property
    def condition_types(self) -> Sequence[str]: ...


def wants(endpoint: Filters, event_type: str, condition_type: str) -> bool:
    """Whether an endpoint's filters let an outbox row pass."""
    if is_operator_event(event_type):
        return event_type in endpoint.event_types
    return (not endpoint.event_types or event_type in endpoint.event_types) and (
        not endpoint.condition_types or condition_type in endpoint.condition_types
    )


async def _subjects(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> dict[tuple[int, str], str]:
    """The endpoints that operator events are about, by organization and event."""
    if not rows:
        return {}
    found = await connection.execute(
        _SUBJECTS,
        {
            "organizations": [row.organization_id for row in rows],
            "events": [row.notification_id for row in rows],
        },
    )
    return {(row.organization_id, row.event_id): row.endpoint_id for row in found}


async def announce(connection: AsyncConnection, organization_ids: Collection[int]) -> None:
    """Wakes notifiers and streams when the transaction commits, as for outbox rows of these organizations."""
    await connection.execute(
        text("SELECT pg_notify(:channel, CAST(id AS text)) FROM unnest(CAST(:ids AS bigint[])) AS id"),
        {"channel": OUTBOX_CHANNEL, "ids": list(organization_ids)},
    )


async def oldest_time(connection: AsyncConnection) -> datetime | None:
    """When the oldest row of the outbox was made; None when it is empty."""
    found: datetime | None = await connection.scalar(text(OLDEST_TIME.on(await driver(connection)).decode()))
    return found


async def notifications(url: str) -> AsyncIterator[int | None]:
    """Yields None when it begins to listen, and then the organization each time that outbox rows were committed.

    Uses a connection of its own. Raises DatabaseUnavailable when that cannot be made, or is lost.
    """
    async for heard in listen(url, OUTBOX_CHANNEL):
        payload = "" if heard is None else heard[1]
        yield int(payload) if payload.isdecimal() else None
