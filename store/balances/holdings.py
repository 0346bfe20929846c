"""Holdings: the balances of customers in the form that alerts and drawdown use, read for many customers at once.

The transaction must hold the customers' wallets, or read one snapshot (`balances.read_one_snapshot`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from evaluator.balances import BalanceKind, Holding, HoldingSegment, Seat, Unit
from store.balances.balances import StoredBalance
from store.postgres.database import DriverConnection, Row
from store.postgres.distributed import Forms

# The columns of `holding_from` and of Segment, of balances that are not voided. What adjustments took away counts as
# used, like what usage drew: 1,000 with an adjustment of -900 has 10 % left.
_COLUMNS = """
SELECT b.customer_id, b.balance_id, b.kind, b.currency, b.metric_id, b.custom_fields, b.contract_custom_fields,
       b.credit_grant_type, b.seat_group_key, b.seat_group_value, b.license_type,
       s.segment_number, s.amount + s.topped_up, s.drawn + s.topped_up - s.adjusted, s.start_time, s.end_time
FROM balance b JOIN balance_segment s USING (organization_id, customer_id, balance_id)
WHERE b.organization_id = %(organization_id)s AND b.customer_id = ANY(%(customer_ids)s)
    AND b.void_time IS NULL AND NOT s.removed AND
"""
_ORDER = " ORDER BY b.customer_id, b.balance_id, s.segment_number"


async def of_kinds(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], kinds: Collection[BalanceKind]
) -> dict[str, list[Holding]]:
    """The balances of those kinds that are not voided, by customer id."""
    return await _fetch(
        connection,
        _COLUMNS + "b.kind = ANY(%(kinds)s)" + _ORDER,
        organization_id,
        customer_ids,
        kinds=[kind.value for kind in kinds],
    )


async def of_seats(
    connection: DriverConnection, organization_id: int, customer_id: str, seats: Iterable[Seat]
) -> list[Holding]:
    """The credits of those seats of one customer."""
    wanted = list(seats)
    query = _COLUMNS + (
        '(b.seat_group_key, b.seat_group_value) IN (SELECT k COLLATE "C", v COLLATE "C"'
        " FROM unnest(%(keys)s::text[], %(values)s::text[]) AS i (k, v))"
    )
    found = await _fetch(
        connection,
        query + _ORDER,
        organization_id,
        [customer_id],
        keys=[seat.key for seat in wanted],
        values=[seat.value for seat in wanted],
    )
    return found.get(customer_id, [])


_OF_BALANCES = "b.customer_id = ANY(%(customer_ids)s)"

# The seats of which a segment starts or ends at a time that belongs to their customer.
_CHANGING_SEATS = Forms.naming_shards(
    """
SELECT DISTINCT b.customer_id, b.seat_group_key, b.seat_group_value
FROM unnest(%(customer_ids)s::text[], %(times)s::timestamptz[]) AS i (holder_id, time)
JOIN balance b ON b.organization_id = %(organization_id)s AND b.customer_id = i.holder_id COLLATE "C"
    AND b.seat_group_key IS NOT NULL AND b.void_time IS NULL
JOIN balance_segment s ON s.organization_id = b.organization_id AND s.customer_id = b.customer_id
    AND s.balance_id = b.balance_id
WHERE NOT s.removed AND (s.start_time = i.time OR s.end_time = i.time) {shards}
""",
    _OF_BALANCES,
)


async def seats_changing_at(
    connection: DriverConnection, organization_id: int, times: Mapping[str, datetime]
) -> dict[str, list[Seat]]:
    """The seats of which a segment starts or ends at a given time, by customer id. times: by customer id."""
    cursor = await connection.execute(
        _CHANGING_SEATS.on(connection),
        {"organization_id": organization_id, "customer_ids": list(times), "times": list(times.values())},
    )
    found: dict[str, list[Seat]] = {}
    for customer_id, key, value in await cursor.fetchall():
        found.setdefault(customer_id, []).append(Seat(key, value))
    return found


# The next time at which a segment of any seat starts or ends, after a time that belongs to its customer.
_NEXT_CHANGE_OF_SEATS = Forms.naming_shards(
    """
SELECT i.holder_id, min(t.time)
FROM unnest(%(customer_ids)s::text[], %(times)s::timestamptz[]) AS i (holder_id, time)
JOIN balance b ON b.organization_id = %(organization_id)s AND b.customer_id = i.holder_id COLLATE "C"
    AND b.seat_group_key IS NOT NULL AND b.void_time IS NULL
JOIN balance_segment s ON s.organization_id = b.organization_id AND s.customer_id = b.customer_id
    AND s.balance_id = b.balance_id,
LATERAL (VALUES (s.start_time), (s.end_time)) AS t (time)
WHERE NOT s.removed AND t.time > i.time {shards}
GROUP BY i.holder_id
""",
    _OF_BALANCES,
)


async def next_change_of_seats(
    connection: DriverConnection, organization_id: int, times: Mapping[str, datetime]
) -> dict[str, datetime]:
    """When a segment of any seat next starts or ends after a given time, by customer id. times: by customer id."""
    cursor = await connection.execute(
        _NEXT_CHANGE_OF_SEATS.on(connection),
        {"organization_id": organization_id, "customer_ids": list(times), "times": list(times.values())},
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


def holding_of(balance: StoredBalance) -> Holding:
    """A stored balance in the form that alerts use."""
    fact = balance.fact
    segments = [] if balance.void_time is not None else [one for one in balance.segments if not one.removed]
    return Holding(
        balance_id=fact.balance_id,
        kind=fact.kind,
        unit=Unit(fact.currency, fact.metric_id),
        segments=tuple(
            HoldingSegment(one.segment_number, one.provided, one.used, one.fact.start_time, one.fact.end_time)
            for one in segments
        ),
        custom_fields=fact.custom_fields,
        contract_custom_fields=fact.contract_custom_fields,
        credit_grant_type=fact.credit_grant_type,
        seat=fact.seat,
        license_type=fact.license_type,
    )


def holding_from(row: Sequence[Any], segments: tuple[HoldingSegment, ...]) -> Holding:
    """The balance in the columns balance_id to license_type of this module's statements."""
    balance_id, kind, currency, metric_id, fields, of_contract, grant_type, seat_key, seat_value, license_type = row
    return Holding(
        balance_id=balance_id,
        kind=BalanceKind(kind),
        unit=Unit(currency, metric_id),
        segments=segments,
        custom_fields=fields,
        contract_custom_fields=of_contract,
        credit_grant_type=grant_type,
        seat=None if seat_key is None else Seat(seat_key, seat_value),
        license_type=license_type,
    )


async def _fetch(
    connection: DriverConnection, query: str, organization_id: int, customer_ids: Collection[str], **parameters: Any
) -> dict[str, list[Holding]]:
    cursor = await connection.execute(
        query.encode(), {"organization_id": organization_id, "customer_ids": list(customer_ids), **parameters}
    )
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in await cursor.fetchall():
        rows.setdefault((row[0], row[1]), []).append(row)
    found: dict[str, list[Holding]] = {}
    for (customer_id, _), of_balance in rows.items():
        segments = tuple(HoldingSegment(*row[11:16]) for row in of_balance)
        found.setdefault(customer_id, []).append(holding_from(of_balance[0][1:11], segments))
    return found
