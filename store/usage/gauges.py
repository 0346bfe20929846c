"""Gauges: their locks, how they are stored, and what an evaluation writes back. `gauge_moves` adds to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from evaluator.gauges import Gauge
from store.postgres.database import DriverConnection
from store.postgres.distributed import Forms, on_cluster
from store.postgres.json_rows import json_rows

NEVER_EVALUATED = -1  # the rules_epoch of a gauge that was inserted and is not evaluated yet


@dataclass(frozen=True, slots=True)
class Locked:
    """The stored gauge, which this transaction has locked.

    rules_epoch: the epoch at which it was last evaluated; NEVER_EVALUATED for a new gauge.
    """

    value: Decimal
    rules_epoch: int
    latest_event_time: datetime | None
    latest_event_id: str | None
    scale: Decimal | None


# Creates the missing gauges and locks the others, in one pass in key order. Two passes would deadlock: a transaction
# that has created the last gauge waits for the first one, and a move that holds the first one waits for the last.
_LOCK = """
INSERT INTO gauge AS g (organization_id, customer_id, gauge_id, value, rules_epoch, update_time)
SELECT %(organization_id)s, customer_id, gauge_id, 0, -1, %(now)s
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id)
ORDER BY customer_id COLLATE "C", gauge_id
ON CONFLICT (organization_id, customer_id, gauge_id) DO UPDATE SET update_time = g.update_time
RETURNING gauge_id, value, rules_epoch, latest_event_time, latest_event, scale
"""


async def lock(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge], now: datetime
) -> dict[UUID, Locked]:
    """Locks gauges, and creates those that do not exist. Returns them by id."""
    cursor = await connection.execute(
        _LOCK,
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_hex for gauge in gauges]),
            "now": now,
        },
    )
    return {
        gauge_id: Locked(value, epoch, latest_time, _latest_id(latest_time, latest), scale)
        for gauge_id, value, epoch, latest_time, latest, scale in await cursor.fetchall()
    }


# Gauges by their keys; nothing is locked.
_STORED = """
SELECT g.gauge_id, g.value, g.rules_epoch, g.latest_event_time, g.latest_event, g.scale, g.update_time
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id)
JOIN gauge g ON g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id {shards}
"""
_OF_CUSTOMERS = r"g.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))"
_THOSE_STORED = Forms.naming_shards(_STORED, _OF_CUSTOMERS)


async def stored(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge]
) -> dict[UUID, tuple[Locked, datetime]]:
    """Those of the gauges that exist, as `lock` returns them but without a lock, and when each last moved."""
    cursor = await connection.execute(
        _THOSE_STORED.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_hex for gauge in gauges]),
        },
    )
    return {
        gauge_id: (Locked(value, epoch, latest_time, _latest_id(latest_time, latest), scale), update_time)
        for gauge_id, value, epoch, latest_time, latest, scale, update_time in await cursor.fetchall()
    }


# The epochs at which gauges were last evaluated; without those that show 0, which may have no events.
_EPOCHS = """
SELECT g.gauge_id, g.rules_epoch
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id)
JOIN gauge g ON g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id
WHERE g.value <> 0 {shards}
"""
_THOSE_EPOCHS = Forms.naming_shards(_EPOCHS, _OF_CUSTOMERS)


async def epochs_with_value(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge]
) -> dict[UUID, int]:
    """The epochs at which those of the gauges that show another value than 0 were last evaluated. Locks nothing."""
    if not gauges:
        return {}
    cursor = await connection.execute(
        _THOSE_EPOCHS.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_hex for gauge in gauges]),
        },
    )
    return dict(await cursor.fetchall())


def _latest_id(latest_time: datetime | None, stored: str | None) -> str | None:
    """The id in gauge.latest_event; None if an older server, which does not know this column, wrote a newer time."""
    time, _, event_id = (stored or "").partition(" ")
    return event_id if latest_time is not None and time == latest_time.astimezone(UTC).isoformat() else None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation stores of a gauge that its transaction has locked.

    trip_above, trip_below: the nearest levels above and below the value at which it must be evaluated again.
    """

    gauge: Gauge
    value: Decimal
    latest_event_time: datetime | None
    trip_above: Decimal | None
    trip_below: Decimal | None
    rules_epoch: int
    scale: Decimal | None = None
    latest_event_id: str | None = None

    @property
    def latest_event(self) -> str | None:
        """The event of the value of LATEST, as the column gauge.latest_event stores it: time and id."""
        if self.latest_event_time is None or self.latest_event_id is None:
            return None
        return f"{self.latest_event_time.astimezone(UTC).isoformat()} {self.latest_event_id}"


# Stores evaluated gauges. The rows come as one JSON text: as arrays, the driver converts 14 values for each gauge.
_WRITE = """
UPDATE gauge g SET
    value = i.value, latest_event_time = i.latest_event_time, latest_event = i.latest_event,
    trip_above = i.trip_above, trip_below = i.trip_below,
    rules_epoch = i.rules_epoch, subscription_id = i.subscription_id, measure = i.measure,
    group_values = i.group_values, period_start = i.period_start, period_end = i.period_end, scale = i.scale,
    update_time = %(now)s
FROM json_to_recordset(%(evaluated)s::json) AS i (
    customer_id text, gauge_id uuid, value numeric, latest_event_time timestamptz, latest_event text,
    trip_above numeric, trip_below numeric, rules_epoch bigint, subscription_id text, measure text,
    group_values jsonb, period_start timestamptz, period_end timestamptz, scale numeric
)
WHERE g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id {shards}
"""
_WRITE_THOSE = Forms.naming_shards(_WRITE, _OF_CUSTOMERS)


async def write(
    connection: DriverConnection, organization_id: int, evaluated: Sequence[Evaluated], now: datetime
) -> None:
    """Stores evaluated gauges. The transaction must hold their locks."""
    rows = await json_rows(map(_row, evaluated), organization_id)
    customers = {item.gauge.customer_id for item in evaluated} if on_cluster(connection) else ()
    parameters = {
        "organization_id": organization_id,
        "now": now,
        "evaluated": rows,
        "customer_ids": "\t".join(customers),
    }
    await connection.execute(_WRITE_THOSE.on(connection), parameters)


def _row(item: Evaluated) -> dict[str, Any]:
    return {
        "customer_id": item.gauge.customer_id,
        "gauge_id": item.gauge.gauge_id,
        "value": item.value,
        "latest_event_time": item.latest_event_time,
        "latest_event": item.latest_event,
        "trip_above": item.trip_above,
        "trip_below": item.trip_below,
        "rules_epoch": item.rules_epoch,
        "subscription_id": item.gauge.subscription_id,
        "measure": item.gauge.measure.key,
        "group_values": item.gauge.group,
        "period_start": item.gauge.period.start,
        "period_end": item.gauge.period.end,
        "scale": item.scale,
    }


# Stores values that gauges have counted, and returns those that are new.
_COUNT_VALUES = """
INSERT INTO unique_value (organization_id, customer_id, gauge_id, value)
SELECT %(organization_id)s, customer_id, gauge_id, value
FROM unnest(%(customer_ids)s::text[], %(gauge_ids)s::uuid[], %(values)s::text[]) AS i (customer_id, gauge_id, value)
ON CONFLICT DO NOTHING
RETURNING gauge_id, value
"""


async def count_values(
    connection: DriverConnection, organization_id: int, values: Sequence[tuple[Gauge, str]]
) -> set[tuple[UUID, str]]:
    """Stores the values of UNIQUE_COUNT gauges, which this transaction has locked; returns those that are new."""
    cursor = await connection.execute(
        _COUNT_VALUES,
        {
            "organization_id": organization_id,
            "customer_ids": [gauge.customer_id for gauge, _ in values],
            "gauge_ids": [gauge.gauge_id for gauge, _ in values],
            "values": [value for _, value in values],
        },
    )
    return {(row[0], row[1]) for row in await cursor.fetchall()}
