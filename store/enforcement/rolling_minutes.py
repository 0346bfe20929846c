"""The minutes of rolling windows: what a meter has counted in each of them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from evaluator.enforcement.meters import MeterCell
from store.citus.shard_tables import ShardsOf, form_for, parts_of
from store.postgres import row_locks
from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms, on_cluster

_OF_METERS = r"m.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))"

# Deletes the minutes that have left windows; returns the sum of each meter.
_FORGET = Forms.naming_shards(
    """
WITH gone AS (
    DELETE FROM meter_minute m
    USING unnest(
        string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
        string_to_array(%(starts)s, E'\t')::timestamptz[]
    ) AS i (customer_id, meter_id, start)
    WHERE m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
        AND m.meter_id = i.meter_id AND m.minute < i.start {shards}
    RETURNING m.meter_id, m.counted
)
SELECT replace(meter_id::text, '-', ''), sum(counted) FROM gone GROUP BY meter_id
""",
    _OF_METERS,
)

# The same without deleting them.
_LEFT = Forms.naming_shards(
    """
SELECT replace(m.meter_id::text, '-', ''), sum(m.counted) FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(starts)s, E'\t')::timestamptz[]
) AS i (customer_id, meter_id, start)
JOIN meter_minute m ON m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
    AND m.meter_id = i.meter_id AND m.minute < i.start
WHERE true {shards}
GROUP BY m.customer_id, m.meter_id
""",
    _OF_METERS,
)

_ADD_MINUTES = b"""
INSERT INTO meter_minute AS m (organization_id, customer_id, meter_id, minute, counted)
SELECT %(organization_id)s, i.* FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(minutes)s, E'\t')::timestamptz[], string_to_array(%(amounts)s, E'\t')::numeric[]
) AS i
ON CONFLICT (organization_id, customer_id, meter_id, minute) DO UPDATE SET counted = m.counted + excluded.counted
"""
_ADD = Forms(_ADD_MINUTES, _ADD_MINUTES)

_CLEAR = Forms.naming_shards(
    """
DELETE FROM meter_minute m
USING unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[])
    AS i (customer_id, meter_id)
WHERE m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
    AND m.meter_id = i.meter_id {shards}
""",
    _OF_METERS,
)

# For each meter, and each number of its amounts that have been counted, the first minute after which they have. The
# minutes are read once for all amounts of a meter, and only up to the one that answers for the largest: a window of a
# month has 43,200. Of corrections, the sum can fall again.
_LEAVING_ONE_BY_ONE = """
SELECT i.position, s.reached, min(s.minute)
FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(amounts)s, E'\t'), string_to_array(%(largest)s, E'\t')::numeric[]
) WITH ORDINALITY AS i (customer_id, meter_id, amounts, largest, position)
LEFT JOIN LATERAL (
    SELECT c.minute FROM ({running}) c WHERE c.counted >= i.largest ORDER BY c.minute LIMIT 1
) AS last ON true
CROSS JOIN LATERAL (
    SELECT c.minute, width_bucket(c.counted, string_to_array(i.amounts, ',')::numeric[]) AS reached
    FROM ({running} AND (last.minute IS NULL OR m.minute <= last.minute)) c
) AS s
WHERE s.reached > 0
GROUP BY 1, 2
""".replace(
    "{running}",
    """
    SELECT m.minute, sum(m.counted) OVER (ORDER BY m.minute ROWS UNBOUNDED PRECEDING) AS counted
    FROM meter_minute m
    WHERE m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
        AND m.meter_id = i.meter_id
    """,
)
# Of a cluster: of the meters of one shard.
_LEAVING_OF_SHARD = _LEAVING_ONE_BY_ONE.replace(
    "AND m.meter_id = i.meter_id", "AND m.meter_id = i.meter_id AND m.customer_id = ANY(%(of_shard)s)"
)


class Leaving(NamedTuple):
    """A question: which minute has to leave the window of a meter until the amount has left it."""

    customer_id: str
    meter_id: str
    amount: Decimal


async def left(
    connection: DriverConnection,
    organization_id: int,
    cells: Sequence[tuple[MeterCell, datetime]],
    *,
    forget: bool,
    shards: ShardsOf | None = None,
) -> dict[str, Decimal]:
    """What has left the windows of meters, by meter id. cells: each with the first minute that its window has now.

    forget: the minutes are deleted; the transaction must hold the wallets. shards: of all customers, if it holds them
    at this node.
    """
    found: dict[str, Decimal] = {}
    forms = _FORGET if forget else _LEFT
    for shard, indexes in parts_of([cell.customer_id for cell, _ in cells], shards) if cells else ():
        part = [cells[index] for index in indexes]
        parameters = {
            **_keys(organization_id, [cell for cell, _ in part]),
            "starts": "\t".join([start.isoformat() for _, start in part]),
        }
        cursor = await connection.execute(form_for(forms, connection, shard), parameters)
        found.update({row[0]: row[1] for row in await cursor.fetchall()})
    return found


def _keys(organization_id: int, cells: Sequence[MeterCell]) -> dict[str, object]:
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join([cell.customer_id for cell in cells]),
        "meter_ids": "\t".join([cell.key for cell in cells]),
    }


async def send_add(
    connection: DriverConnection, organization_id: int, cells: Sequence[MeterCell], shards: ShardsOf | None = None
) -> None:
    """Sends the statements that add what cells have counted since they were read. shards: as of `left`."""
    rows = [(cell, minute, amount) for cell in cells for minute, amount in cell.minutes.items()]
    for shard, indexes in parts_of([cell.customer_id for cell, _, _ in rows], shards) if rows else ():
        part = [rows[index] for index in indexes]
        parameters = {
            **_keys(organization_id, [cell for cell, _, _ in part]),
            "minutes": "\t".join([minute.isoformat() for _, minute, _ in part]),
            "amounts": "\t".join([str(amount) for _, _, amount in part]),
        }
        await connection.execute(form_for(_ADD, connection, shard), parameters)


async def clear(connection: DriverConnection, organization_id: int, cells: Sequence[MeterCell]) -> None:
    """Deletes all minutes of meters, which are about to be counted anew."""
    if cells:
        await connection.execute(_CLEAR.on(connection), _keys(organization_id, cells))


async def leaving(
    connection: DriverConnection, organization_id: int, wanted: Sequence[Leaving]
) -> list[datetime | None]:
    """For each question the minute; None if so much is not in the window.

    Costs the minutes of the window up to the latest of those that are found; all of them where one is None.
    """
    by_meter: dict[tuple[str, str], dict[Decimal, datetime | None]] = {}
    for one in wanted:
        by_meter.setdefault((one.customer_id, one.meter_id), {})[one.amount] = None
    asked = [(key, sorted(amounts)) for key, amounts in by_meter.items()]
    first: list[list[datetime | None]] = [[None] * len(amounts) for _, amounts in asked]
    for indexes, cursor in await _send_leaving(connection, organization_id, asked):
        for position, reached, minute in await cursor.fetchall():
            first[indexes[position - 1]][reached - 1] = minute
    for (key, amounts), of_meter in zip(asked, first, strict=True):
        earliest: datetime | None = None
        for amount, minute in zip(reversed(amounts), reversed(of_meter), strict=True):
            # After the minute in which a larger amount is reached, this one is, too.
            earliest = minute if earliest is None or (minute is not None and minute < earliest) else earliest
            by_meter[key][amount] = earliest
    return [by_meter[one.customer_id, one.meter_id][one.amount] for one in wanted]


_Asked = Sequence[tuple[tuple[str, str], Sequence[Decimal]]]  # customer and meter, and its amounts, ascending


async def _send_leaving(
    connection: DriverConnection, organization_id: int, asked: _Asked
) -> list[tuple[Sequence[int], Cursor]]:
    """Sends the statements of `leaving`, each with the indexes of what it asks."""

    def parameters(indexes: Sequence[int]) -> dict[str, object]:
        part = [asked[index] for index in indexes]
        return {
            "organization_id": organization_id,
            "customer_ids": "\t".join([customer_id for (customer_id, _), _ in part]),
            "meter_ids": "\t".join([meter_id for (_, meter_id), _ in part]),
            "amounts": "\t".join([",".join(map(str, amounts)) for _, amounts in part]),
            "largest": "\t".join([str(amounts[-1]) for _, amounts in part]),
        }

    if not on_cluster(connection):
        every = range(len(asked))
        return [(every, await connection.execute(_LEAVING_ONE_BY_ONE, parameters(every)))]
    by_customer: dict[str, list[int]] = {}
    for index, ((customer_id, _), _) in enumerate(asked):
        by_customer.setdefault(customer_id, []).append(index)
    parts: list[list[int]] = []

    def of_shard(customer_ids: list[str]) -> dict[str, object]:
        parts.append([index for customer_id in customer_ids for index in by_customer[customer_id]])
        return {**parameters(parts[-1]), "of_shard": customer_ids}

    sent = await row_locks.send_by_shard(connection, _LEAVING_OF_SHARD.encode(), by_customer, of_shard)
    return list(zip(parts, sent, strict=True))
