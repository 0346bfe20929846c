"""The minutes of rolling windows: what a meter has counted in each of them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from evaluator.enforcement.meters import MeterCell
from store.postgres.database import DriverConnection

# Deletes the minutes that have left windows; returns the sum of each meter.
_FORGET = """
WITH gone AS (
    DELETE FROM meter_minute m
    USING unnest(
        string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
        string_to_array(%(starts)s, E'\t')::timestamptz[]
    ) AS i (customer_id, meter_id, start)
    WHERE m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
        AND m.meter_id = i.meter_id AND m.minute < i.start
    RETURNING m.meter_id, m.counted
)
SELECT replace(meter_id::text, '-', ''), sum(counted) FROM gone GROUP BY meter_id
"""

# The same without deleting them.
_LEFT = """
SELECT replace(m.meter_id::text, '-', ''), sum(m.counted) FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(starts)s, E'\t')::timestamptz[]
) AS i (customer_id, meter_id, start)
JOIN meter_minute m ON m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
    AND m.meter_id = i.meter_id AND m.minute < i.start
GROUP BY m.meter_id
"""

_ADD = """
INSERT INTO meter_minute AS m (organization_id, customer_id, meter_id, minute, counted)
SELECT %(organization_id)s, i.* FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(minutes)s, E'\t')::timestamptz[], string_to_array(%(amounts)s, E'\t')::numeric[]
) AS i
ON CONFLICT (organization_id, customer_id, meter_id, minute) DO UPDATE SET counted = m.counted + excluded.counted
"""

_CLEAR = """
DELETE FROM meter_minute m
USING unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[])
    AS i (customer_id, meter_id)
WHERE m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
    AND m.meter_id = i.meter_id
"""

# For each question the first minute after which enough has been counted; of corrections, the sum can fall again.
_LEAVING = """
SELECT i.position, (
    SELECT min(s.minute) FROM (
        SELECT m.minute, sum(m.counted) OVER (ORDER BY m.minute) AS counted FROM meter_minute m
        WHERE m.organization_id = %(organization_id)s AND m.customer_id = i.customer_id COLLATE "C"
            AND m.meter_id = i.meter_id
    ) s WHERE s.counted >= i.amount
)
FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(meter_ids)s, E'\t')::uuid[],
    string_to_array(%(amounts)s, E'\t')::numeric[]
) WITH ORDINALITY AS i (customer_id, meter_id, amount, position)
"""


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
) -> dict[str, Decimal]:
    """What has left the windows of meters, by meter id. cells: each with the first minute that its window has now.

    forget: the minutes are deleted; the transaction must hold the wallets.
    """
    if not cells:
        return {}
    cursor = await connection.execute(
        _FORGET if forget else _LEFT,
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([cell.customer_id for cell, _ in cells]),
            "meter_ids": "\t".join([cell.key for cell, _ in cells]),
            "starts": "\t".join([start.isoformat() for _, start in cells]),
        },
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def send_add(connection: DriverConnection, organization_id: int, cells: Sequence[MeterCell]) -> None:
    """Sends the statement that adds what cells have counted since they were read."""
    rows = [(cell, minute, amount) for cell in cells for minute, amount in cell.minutes.items()]
    if rows:
        await connection.execute(
            _ADD,
            {
                "organization_id": organization_id,
                "customer_ids": "\t".join([cell.customer_id for cell, _, _ in rows]),
                "meter_ids": "\t".join([cell.key for cell, _, _ in rows]),
                "minutes": "\t".join([minute.isoformat() for _, minute, _ in rows]),
                "amounts": "\t".join([str(amount) for _, _, amount in rows]),
            },
        )


async def clear(connection: DriverConnection, organization_id: int, cells: Sequence[MeterCell]) -> None:
    """Deletes all minutes of meters, which are about to be counted anew."""
    if cells:
        await connection.execute(
            _CLEAR,
            {
                "organization_id": organization_id,
                "customer_ids": "\t".join([cell.customer_id for cell in cells]),
                "meter_ids": "\t".join([cell.key for cell in cells]),
            },
        )


async def leaving(
    connection: DriverConnection, organization_id: int, wanted: Sequence[Leaving]
) -> list[datetime | None]:
    """For each question the minute; None if so much is not in the window. Costs the minutes of the window."""
    found: list[datetime | None] = [None] * len(wanted)
    cursor = await connection.execute(
        _LEAVING,
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([one.customer_id for one in wanted]),
            "meter_ids": "\t".join([one.meter_id for one in wanted]),
            "amounts": "\t".join([str(one.amount) for one in wanted]),
        },
    )
    for position, minute in await cursor.fetchall():
        found[position - 1] = minute
    return found
