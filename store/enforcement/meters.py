"""Meters: read and written by the holder of the wallets of their customers.

Columns come as text with tabs between the values: no value contains a tab, and the driver converts arrays value by
value.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson

from evaluator.enforcement.meters import Meter, MeterCell
from store.citus.shard_tables import ShardsOf, form_for, parts_of
from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms

# How long after its last use a meter of a rolling window is kept beside the length of the window. It moves once a day
# at most: the column has an index.
_KEPT = timedelta(days=2)

# Meters by their keys. LATERAL with LIMIT: one search of the primary key for each. A plain join may be planned as a
# scan of all meters of the organization, also for one key. The arrays are subqueries, because a plan of its own for
# each call, by the number of keys, takes longer than the search.
_READ_BY_KEY = """
SELECT i.position, m.*
FROM unnest(
    (SELECT string_to_array(%(customer_ids)s, E'\t')), (SELECT string_to_array(%(meter_ids)s, E'\t')::uuid[])
) WITH ORDINALITY AS i (customer_id, meter_id, position)
CROSS JOIN LATERAL (
    SELECT counted, held, rules_epoch, counted_from, refused_time FROM meter
    WHERE organization_id = %(organization_id)s
        AND customer_id = i.customer_id COLLATE "C" AND meter_id = i.meter_id
    LIMIT 1
) AS m
"""
_READ_JOINED = """
SELECT i.position, m.counted, m.held, m.rules_epoch, m.counted_from, m.refused_time
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[])
    WITH ORDINALITY AS i (customer_id, meter_id, position)
JOIN meter m ON m.customer_id = i.customer_id COLLATE "C" AND m.meter_id = i.meter_id
WHERE m.organization_id = %(organization_id)s AND m.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))
"""
_READ = Forms(_READ_BY_KEY.encode(), _READ_JOINED.encode())

# Times without a zone, because shards evaluate immutable functions only.
_NEW_VALUES = """
UPDATE meter m SET
    counted = i.counted, held = i.held, rules_epoch = i.rules_epoch, update_time = %(now)s,
    counted_from = i.counted_from, refused_time = i.refused_time,
    window_end = CASE WHEN m.window_minutes IS NULL THEN m.window_end ELSE
        (%(kept_until)s::timestamp + make_interval(mins => m.window_minutes)) AT TIME ZONE 'UTC'
    END
"""
_VALUES = """unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(counted)s, E'\t')::numeric[], string_to_array(%(held)s, E'\t')::numeric[],
    string_to_array(%(rules_epochs)s, E'\t')::bigint[],
    string_to_array(%(counted_from)s, E'\t', '')::timestamptz[],
    string_to_array(%(refused_times)s, E'\t', '')::timestamptz[]
) AS i (customer_id, meter_id, counted, held, rules_epoch, counted_from, refused_time)
"""

# Stores meters that were read before, each found as in _READ. The end of a rolling window changes once a day at most.
_UPDATE_BY_KEY = f"""{_NEW_VALUES}
FROM (
    SELECT i.*, found.place
    FROM {_VALUES}
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM meter
        WHERE organization_id = %(organization_id)s
            AND customer_id = i.customer_id COLLATE "C" AND meter_id = i.meter_id
        LIMIT 1
    ) AS found
) AS i
WHERE m.ctid = i.place
"""
_UPDATE_JOINED = rf"""{_NEW_VALUES}
FROM {_VALUES}
WHERE m.organization_id = %(organization_id)s AND m.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))
    AND m.customer_id = i.customer_id COLLATE "C" AND m.meter_id = i.meter_id
"""
_UPDATE = Forms(_UPDATE_BY_KEY.encode(), _UPDATE_JOINED.encode())

# Stores new meters.
_INSERT_NEW = """
INSERT INTO meter (
    organization_id, customer_id, meter_id, counted, held, rules_epoch, counted_from, refused_time, window_end,
    subscription_id, unit, group_values, window_kind, window_minutes, window_start, update_time
)
SELECT %(organization_id)s, i.customer_id, i.meter_id, i.counted, i.held, i.rules_epoch, i.counted_from,
    i.refused_time, coalesce(
        i.window_end,
        (date_trunc('day', %(now)s::timestamptz AT TIME ZONE 'UTC')
            + make_interval(days => %(kept)s, mins => i.window_minutes)) AT TIME ZONE 'UTC'
    ),
    i.subscription_id, i.unit, i.group_values, i.window_kind, i.window_minutes, i.window_start, %(now)s
FROM json_to_recordset(%(rows)s::json) AS i (
    customer_id text, meter_id uuid, counted numeric, held numeric, rules_epoch bigint, counted_from timestamptz,
    refused_time timestamptz, window_end timestamptz, subscription_id text, unit text, group_values jsonb,
    window_kind text, window_minutes integer, window_start timestamptz
)
"""
_INSERT = Forms(_INSERT_NEW.encode(), _INSERT_NEW.encode())


Read = Sequence[tuple[Sequence[int], Cursor]]  # the indexes of the keys that each cursor has read


async def send_read(
    connection: DriverConnection,
    organization_id: int,
    keys: Sequence[tuple[str, str]],
    shards: ShardsOf | None = None,
) -> Read:
    """Sends the statements that read meters; `stored` reads the result.

    keys: customer id and meter id. shards: of all customers, if the transaction holds them at this node.
    """
    sent = []
    for shard, indexes in parts_of([customer_id for customer_id, _ in keys], shards):
        part = [keys[index] for index in indexes]
        parameters = {
            "organization_id": organization_id,
            "customer_ids": "\t".join([customer_id for customer_id, _ in part]),
            "meter_ids": "\t".join([meter_id for _, meter_id in part]),
        }
        sent.append((indexes, await connection.execute(form_for(_READ, connection, shard), parameters)))
    return sent


async def stored(read: Read, keys: Sequence[tuple[str, str]]) -> dict[str, MeterCell]:
    """The result of `send_read`, by meter id; without the meters that do not exist."""
    cells = {}
    for indexes, cursor in read:
        for position, counted, held, rules_epoch, counted_from, refused_time in await cursor.fetchall():
            customer_id, key = keys[indexes[position - 1]]
            cells[key] = MeterCell(counted, held, customer_id, key, None, counted_from, refused_time, rules_epoch)
    return cells


async def send_write(
    connection: DriverConnection,
    organization_id: int,
    cells: Sequence[MeterCell],
    now: datetime,
    shards: ShardsOf | None = None,
) -> None:
    """Sends the statements that store cells. The transaction must hold the wallets of their customers.

    shards: as of `send_read`.
    """
    known = [cell for cell in cells if not cell.is_new]
    for shard, indexes in parts_of([cell.customer_id for cell in known], shards) if known else ():
        await connection.execute(
            form_for(_UPDATE, connection, shard), _changed(organization_id, [known[index] for index in indexes], now)
        )
    new = [(cell.customer_id, _row(cell, cell.meter)) for cell in cells if cell.is_new and cell.meter is not None]
    for shard, indexes in parts_of([customer_id for customer_id, _ in new], shards) if new else ():
        parameters = {
            "organization_id": organization_id,
            "now": now,
            "kept": _KEPT.days,
            "rows": orjson.dumps([new[index][1] for index in indexes], default=str).decode(),
        }
        await connection.execute(form_for(_INSERT, connection, shard), parameters)


def _changed(organization_id: int, cells: Sequence[MeterCell], now: datetime) -> dict[str, object]:
    return {
        "organization_id": organization_id,
        "now": now,
        "kept_until": _midnight(now) + _KEPT,
        "customer_ids": "\t".join([cell.customer_id for cell in cells]),
        "meter_ids": "\t".join([cell.key for cell in cells]),
        "counted": "\t".join([str(cell.counted) for cell in cells]),
        "held": "\t".join([str(cell.held) for cell in cells]),
        "rules_epochs": "\t".join([str(cell.rules_epoch) for cell in cells]),
        "counted_from": _times([cell.counted_from for cell in cells]),
        "refused_times": _times([cell.refused_time for cell in cells]),
    }


def _row(cell: MeterCell, meter: Meter) -> dict[str, object]:
    span = meter.span
    return {
        "customer_id": cell.customer_id,
        "meter_id": cell.key,
        "counted": cell.counted,
        "held": cell.held,
        "rules_epoch": cell.rules_epoch,
        "counted_from": cell.counted_from,
        "refused_time": cell.refused_time,
        "window_end": None if span is None else span.end,
        "subscription_id": meter.subscription_id,
        "unit": meter.unit.key,
        "group_values": dict(meter.group),
        "window_kind": meter.window.kind.value,
        "window_minutes": meter.window.minutes,
        "window_start": None if span is None else span.start,
    }


def _midnight(now: datetime) -> datetime:
    """The beginning of the day, in UTC and without a zone."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def _times(times: Sequence[datetime | None]) -> str:
    """An empty text if there are none; PostgreSQL fills the column up with NULL, faster than it reads it."""
    if not any(times):
        return ""
    return "\t".join(["" if time is None else time.isoformat() for time in times])


# Deletes meters whose windows ended long ago, with the minutes of rolling ones, but not those that reservations hold.
_DELETE = """
WITH gone AS (
    DELETE FROM meter WHERE (organization_id, customer_id, meter_id) IN (
        SELECT organization_id, customer_id, meter_id FROM meter WHERE window_end < %(before)s AND held = 0
        ORDER BY window_end LIMIT %(limit)s
    ) AND held = 0
    RETURNING organization_id, customer_id, meter_id
), minutes AS (
    DELETE FROM meter_minute m USING gone g
    WHERE (m.organization_id, m.customer_id, m.meter_id) = (g.organization_id, g.customer_id, g.meter_id)
)
SELECT count(*) FROM gone
"""


async def delete_before(connection: DriverConnection, before: datetime, limit: int) -> int:
    """Deletes up to `limit` meters whose windows ended before a time; returns how many. Takes no wallet.

    Usage that comes as late as this has its meter counted anew.
    """
    cursor = await connection.execute(_DELETE, {"before": before, "limit": limit})
    [(count,)] = await cursor.fetchall()
    return int(count)
