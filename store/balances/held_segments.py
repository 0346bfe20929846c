"""Reads the segments that reservations hold, and which usage needs credit, for many customers in one statement.

The transaction must hold the wallets of the customers, or read one snapshot (`balances.read_one_snapshot`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evaluator.balance_holds import SegmentKey
from store.balances.drawdown import COLUMNS, Drawable, drawable_from
from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms

# Segments by their keys: of ended segments, of those that a put left out, and of voided balances, too.
_READ_HELD = Forms.naming_shards(
    COLUMNS
    + """, b.draw_down AND b.void_time IS NULL AND NOT s.removed, b.void_time IS NULL AND NOT s.removed
FROM unnest(%(customer_ids)s::text[], %(balance_ids)s::text[], %(numbers)s::int[])
    AS i (customer_id, balance_id, segment_number)
JOIN balance b ON b.organization_id = %(organization_id)s AND b.customer_id = i.customer_id COLLATE "C"
    AND b.balance_id = i.balance_id COLLATE "C"
JOIN balance_segment s ON s.organization_id = b.organization_id AND s.customer_id = b.customer_id
    AND s.balance_id = b.balance_id AND s.segment_number = i.segment_number {shards}
""",
    "b.customer_id = ANY(%(customer_ids)s)",
)


async def send_segments(
    connection: DriverConnection, organization_id: int, keys: Collection[tuple[str, SegmentKey]]
) -> Cursor:
    """Reads the segments with those keys, each with its customer id; `segments` returns them."""
    parameters = {
        "organization_id": organization_id,
        "customer_ids": [customer_id for customer_id, _ in keys],
        "balance_ids": [balance_id for _, (balance_id, _) in keys],
        "numbers": [number for _, (_, number) in keys],
    }
    return await connection.execute(_READ_HELD.on(connection), parameters)


async def segments(cursor: Cursor) -> list[Drawable]:
    """The result of `send_segments`."""
    found = []
    for *columns, gives, counts in await cursor.fetchall():
        item = drawable_from(tuple(columns))
        item.gives, item.counts = gives, counts
        found.append(item)
    return found


@dataclass(frozen=True, slots=True)
class Use:
    """Usage that asks for credit. metric_id: of the usage. unit: the key of one in which it draws.

    seat: a property and its value that name a seat; None: balances of no seat are asked for.
    """

    customer_id: str
    unit: str
    metric_id: str
    seat: tuple[str, str] | None = None


# A balance `b` is for a use `i`, whether any of its segments is active or not.
_COVERS = """b.organization_id = %(organization_id)s AND b.customer_id = i.customer_id COLLATE "C"
        AND b.draw_down AND b.void_time IS NULL AND {of_seat}
        AND i.unit = CASE WHEN b.metric_id IS NULL THEN 'cost/' || b.currency ELSE 'usage/' || b.metric_id END
            COLLATE "C"
        AND (b.draw_down_metric_ids = '{{}}' OR i.metric_id COLLATE "C" = ANY(b.draw_down_metric_ids))"""
# The uses for which a balance exists that is not voided. Stops at the first balance of each use.
_COVERED = """
SELECT i.place FROM unnest(
    %(customer_ids)s::text[], %(units)s::text[], %(metric_ids)s::text[], %(keys)s::text[], %(values)s::text[]
) WITH ORDINALITY AS i (customer_id, unit, metric_id, key, value, place)
WHERE EXISTS (
    SELECT 1 FROM balance b
    WHERE {covers}
)
"""
# The same by a join, which finds all balances of each use.
_COVERED_JOINED = """
SELECT i.place FROM unnest(
    %(customer_ids)s::text[], %(units)s::text[], %(metric_ids)s::text[], %(keys)s::text[], %(values)s::text[]
) WITH ORDINALITY AS i (customer_id, unit, metric_id, key, value, place)
JOIN balance b ON b.customer_id = i.customer_id COLLATE "C"
WHERE {covers} AND b.customer_id = ANY(%(customer_ids)s)
GROUP BY b.customer_id, i.place
"""


def _covered(of_seat: str) -> Forms:
    covers = _COVERS.format(of_seat=of_seat)
    return Forms(_COVERED.format(covers=covers).encode(), _COVERED_JOINED.format(covers=covers).encode())


_COVERED_BY_POOLED = _covered("b.seat_group_key IS NULL")
_COVERED_BY_SEATS = _covered('b.seat_group_key = i.key COLLATE "C" AND b.seat_group_value = i.value COLLATE "C"')


async def send_with_balances(
    connection: DriverConnection, organization_id: int, uses: Collection[Use]
) -> list[tuple[Sequence[Use], Cursor]]:
    """Reads which uses some balance of the customer with drawdown is for; `with_balances` returns them.

    Voided balances are for none.
    """
    pooled = [use for use in uses if use.seat is None]
    of_seats = [use for use in uses if use.seat is not None]
    sent = list[tuple[Sequence[Use], Cursor]]()
    for statement, wanted in ((_COVERED_BY_POOLED, pooled), (_COVERED_BY_SEATS, of_seats)):
        if not wanted:
            continue
        parameters = {
            "organization_id": organization_id,
            "customer_ids": [use.customer_id for use in wanted],
            "units": [use.unit for use in wanted],
            "metric_ids": [use.metric_id for use in wanted],
            "keys": [use.seat[0] if use.seat else None for use in wanted],
            "values": [use.seat[1] if use.seat else None for use in wanted],
        }
        sent.append((wanted, await connection.execute(statement.on(connection), parameters)))
    return sent


async def with_balances(sent: Sequence[tuple[Sequence[Use], Cursor]]) -> set[Use]:
    """The result of `send_with_balances`."""
    return {wanted[place - 1] for wanted, cursor in sent for (place,) in await cursor.fetchall()}
