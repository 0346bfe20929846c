"""Voids: counted events are locked, moved to `voided_event`, and found there again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from evaluator.events import UsageEvent
from evaluator.voids import EventKey
from store.postgres.database import Connection, DriverConnection, Row, driver
from store.postgres.distributed import Forms, on_cluster
from store.postgres.pipelines import fetched_each
from store.tables import event_key
from store.usage.months import in_month_of

# The events that the keys name, as rows `i`.
_KEYS = """unnest(
    %(customer_ids)s::text[], %(event_ids)s::text[], %(times)s::timestamptz[]
) WITH ORDINALITY AS i (customer_id, event_id, event_time, position)"""

# Whether the time of a row `e` is in the month that a key `i` names.
_IN_MONTH = f"(i.event_time IS NULL OR {in_month_of('i.event_time')})"
_OF_EVENT = event_key.of_event("%(organization_id)s", "i.customer_id", "i.event_id")

# Locks events, in the order in which ingest stores them: by month, customer and id. A second void of the same event
# waits here, and then finds nothing.
_LOCK = f"""
SELECT i.position, e.event_id, e.customer_id, e.event_time, e.metric_id, e.quantity,
       e.subscription_id, e.cost, e.currency, e.properties, e.event_name
FROM {_KEYS} JOIN event e ON {_OF_EVENT} AND {_IN_MONTH}
ORDER BY date_trunc('month', e.event_time, 'UTC'), e.customer_id, e.event_id
FOR UPDATE OF e
"""
_OF_CUSTOMERS = "e.customer_id = ANY(%(customer_ids)s)"
_READ = Forms.naming_shards(
    _LOCK.replace("FOR UPDATE OF e", "").replace("ORDER BY", "{shards} ORDER BY"), _OF_CUSTOMERS
)

# Locks the events of one key: on a cluster, a lock of rows names the customer.
_LOCK_ONE = f"""
SELECT %(position)s::bigint, e.event_id, e.customer_id, e.event_time, e.metric_id, e.quantity,
       e.subscription_id, e.cost, e.currency, e.properties, e.event_name
FROM event e
WHERE {event_key.of_event("%(organization_id)s", "%(customer_id)s", "%(event_id)s")} AND (
    %(time)s::timestamptz IS NULL OR {in_month_of("%(time)s::timestamptz")}
)
ORDER BY e.event_time FOR UPDATE OF e
"""


async def read(
    connection: DriverConnection, organization_id: int, keys: Sequence[EventKey]
) -> dict[int, list[UsageEvent]]:
    """What `lock` returns, without a lock."""
    return await _events(connection, _READ.on(connection), organization_id, keys)


async def lock(
    connection: DriverConnection, organization_id: int, keys: Sequence[EventKey]
) -> dict[int, list[UsageEvent]]:
    """Locks the stored events that the keys name; returns them by the index of the key.

    A key without a time reads one row of each month that is kept.
    """
    if not on_cluster(connection):
        return await _events(connection, _LOCK.encode(), organization_id, keys)
    in_order = sorted(enumerate(keys, start=1), key=lambda one: (one[1].customer_id, one[1].event_id))
    each = [
        {
            "position": position,
            "organization_id": organization_id,
            "customer_id": key.customer_id,
            "event_id": key.event_id,
            "time": key.event_time,
        }
        for position, key in in_order
    ]
    return _by_index(await fetched_each(connection, _LOCK_ONE.encode(), each))


async def _events(
    connection: DriverConnection, statement: bytes, organization_id: int, keys: Sequence[EventKey]
) -> dict[int, list[UsageEvent]]:
    cursor = await connection.execute(statement, _parameters(organization_id, keys))
    return _by_index(await cursor.fetchall())


def _by_index(rows: Sequence[Row]) -> dict[int, list[UsageEvent]]:
    found: dict[int, list[UsageEvent]] = {}
    for position, *columns in rows:
        event = UsageEvent(*columns)
        event = event._replace(metric_id=event.metric_id or "", properties=event.properties or {})
        found.setdefault(position - 1, []).append(event)
    return found


_COLUMNS = """organization_id, customer_id, event_id, event_time, ingest_time, subscription_id, metric_id,
    quantity, cost, currency, properties, event_name"""

# Moves events to `voided_event`.
_VOID = f"""
WITH voided AS (
    DELETE FROM event e USING unnest(%(customer_ids)s::text[], %(event_ids)s::text[], %(times)s::timestamptz[])
        AS i (customer_id, event_id, event_time)
    WHERE {_OF_EVENT} AND e.event_time = i.event_time {{shards}}
    RETURNING e.*
)
INSERT INTO voided_event ({_COLUMNS}, void_time, key_id)
SELECT {_COLUMNS}, %(now)s, %(key_id)s FROM voided
"""
_VOID_THOSE = Forms.naming_shards(_VOID, _OF_CUSTOMERS)


async def void(
    connection: DriverConnection,
    organization_id: int,
    events: Sequence[UsageEvent],
    now: datetime,
    key_id: str | None,
) -> None:
    """Moves events that this transaction has locked to the voided ones. key_id: the API key that asked for it."""
    keys = [EventKey(event.customer_id, event.event_id, event.event_time) for event in events]
    parameters = {**_parameters(organization_id, keys), "now": now, "key_id": key_id}
    await connection.execute(_VOID_THOSE.on(connection), parameters)


# Which of the keys name an event that was voided before.
_VOIDED = f"""
SELECT DISTINCT i.position FROM {_KEYS} JOIN voided_event e ON e.organization_id = %(organization_id)s
    AND e.customer_id = i.customer_id COLLATE "C" AND e.event_id = i.event_id COLLATE "C" AND {_IN_MONTH} {{shards}}
"""
_THOSE_VOIDED = Forms.naming_shards(_VOIDED, _OF_CUSTOMERS)


async def voided_before(connection: DriverConnection, organization_id: int, keys: Sequence[EventKey]) -> set[int]:
    """The indexes of those keys of which a voided event is known."""
    cursor = await connection.execute(_THOSE_VOIDED.on(connection), _parameters(organization_id, keys))
    return {row[0] - 1 for row in await cursor.fetchall()}


async def delete_before(connection: Connection, time: datetime) -> None:
    """Forgets the voided events whose own time is before `time`."""
    raw = await driver(connection)
    await raw.execute("DELETE FROM voided_event WHERE event_time < %s", (time,))


def _parameters(organization_id: int, keys: Sequence[EventKey]) -> dict[str, Any]:
    return {
        "organization_id": organization_id,
        "customer_ids": [key.customer_id for key in keys],
        "event_ids": [key.event_id for key in keys],
        "times": [key.event_time for key in keys],
    }
