"""Open reservations of usage that a meter counts from now on: they hold a part of it, too.

A reservation takes its part of each meter when it is made. Where a limit begins later, or its holder gets other
customers below it, the reservation gets another charge when the meter is counted. What ends the reservation gives
back all of its charges, so it must know this one: it holds the wallet of the meter's customer, like the transaction
that adds the charge, or it holds the row of the reservation and finds that nothing was added.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from evaluator.amounts import ZERO, exact_arithmetic
from store.enforcement.meter_recounts import (
    COUNTED,
    COUNTED_BELOW,
    WANTED,
    MeterRecount,
    parameters_of_below,
    parameters_of_meters,
)
from store.postgres import row_locks
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster

# Open reservations `r` of which a row `i` of COUNTED holds a part from now on, and how much.
_AMOUNT = """CASE i.counts
            WHEN 'COST' THEN r.granted_cost WHEN 'EVENTS' THEN 1 ELSE r.granted_quantity END"""
_IS_COUNTED = """r.organization_id = %(organization_id)s AND r.customer_id = i.customer_id COLLATE "C"
            AND r.state = 'OPEN'
            AND CASE i.counts WHEN 'COST' THEN r.currency ELSE r.metric_id END = i.name COLLATE "C"
            AND r.event_time >= i.period_start AND r.event_time < i.period_end
            AND (i.subscription_id IS NULL OR r.subscription_id = i.subscription_id COLLATE "C")
            AND coalesce(r.properties, '{}') @> i.group_values
            AND NOT coalesce(r.charges @> jsonb_build_array(jsonb_build_array(i.holder_id, i.meter_id)), false)"""

# What open reservations would hold of each meter, and do not hold yet.
_FOUND = f"""
{WANTED}, found AS MATERIALIZED (
    SELECT i.position, i.holder_id, i.meter_id, r.* FROM {COUNTED} CROSS JOIN LATERAL (
        SELECT r.customer_id, r.reservation_id, {_AMOUNT} AS amount
        FROM reservation r
        WHERE {_IS_COUNTED}
        OFFSET 0
    ) AS r WHERE r.amount <> 0
)
"""

# Adds charges; returns their sum for each meter. Reservations are locked in the order of their keys, because others
# may add charges of other meters to them. One that ends meanwhile is not among the locked ones.
_ADD = f"""
{_FOUND}, locked AS MATERIALIZED (
    SELECT r.customer_id, r.reservation_id FROM reservation r
    JOIN (SELECT DISTINCT customer_id, reservation_id FROM found) AS f USING (customer_id, reservation_id)
    WHERE r.organization_id = %(organization_id)s AND r.state = 'OPEN'
    ORDER BY r.customer_id, r.reservation_id FOR UPDATE OF r
), added AS (
    UPDATE reservation r SET charges = coalesce(r.charges, '[]') || a.charges
    FROM (
        SELECT customer_id, reservation_id,
            jsonb_agg(jsonb_build_array(holder_id, meter_id, amount::text) ORDER BY position) AS charges
        FROM found JOIN locked USING (customer_id, reservation_id) GROUP BY 1, 2
    ) AS a
    WHERE r.organization_id = %(organization_id)s
        AND r.customer_id = a.customer_id AND r.reservation_id = a.reservation_id
)
SELECT position, sum(amount) FROM found JOIN locked USING (customer_id, reservation_id) GROUP BY 1
"""

# The steps of _ADD on a cluster: the charges, the lock of the reservations of a customer, and the change.
_FOUND_BELOW = f"""
SELECT i.position, r.customer_id, r.reservation_id, i.holder_id, i.meter_id, ({_AMOUNT})::text
FROM {COUNTED_BELOW} JOIN reservation r ON {_IS_COUNTED}
WHERE r.customer_id = ANY(%(below_ids)s) AND {_AMOUNT} <> 0
ORDER BY 1, 2, 3
""".encode()
_LOCK_OPEN = b"""
SELECT customer_id, reservation_id FROM reservation
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
    AND (customer_id, reservation_id) IN (
        SELECT a COLLATE "C", b COLLATE "C" FROM unnest(%(customers)s::text[], %(reservations)s::text[]) AS i (a, b)
    ) AND state = 'OPEN'
ORDER BY customer_id, reservation_id FOR UPDATE
"""
_CHARGE = b"""
UPDATE reservation r SET charges = coalesce(r.charges, '[]') || a.charges
FROM json_to_recordset(%(added)s::json) AS a (customer_id text, reservation_id text, charges jsonb)
WHERE r.organization_id = %(organization_id)s AND r.customer_id = ANY(%(customer_ids)s)
    AND r.customer_id = a.customer_id COLLATE "C" AND r.reservation_id = a.reservation_id COLLATE "C"
"""


async def hold(connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]) -> list[Decimal]:
    """What open reservations hold of each meter from now on and did not hold before.

    As if the limit had stood when they were made: of a rolling window, they count whatever their time is. The
    transaction must hold the wallets of the meters' customers. Costs a look-up for each customer below.
    """
    if on_cluster(connection):
        found = await _charges(connection, organization_id, wanted)
        return _sums(await _add(connection, organization_id, found), len(wanted))
    return await _amounts(connection, organization_id, wanted, _ADD)


# The sum for each meter, without an effect.
_WOULD = f"{_FOUND} SELECT position, sum(amount) FROM found GROUP BY 1"


async def would_hold(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]
) -> list[Decimal]:
    """What `hold` would return. Changes nothing."""
    if on_cluster(connection):
        return _sums(await _charges(connection, organization_id, wanted), len(wanted))
    return await _amounts(connection, organization_id, wanted, _WOULD)


class _Charge(NamedTuple):
    """What a reservation would hold of a meter. amount: as PostgreSQL writes it."""

    position: int
    customer_id: str
    reservation_id: str
    holder_id: str
    meter_id: str
    amount: str


async def _charges(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]
) -> list[_Charge]:
    below = await parameters_of_below(connection, organization_id, wanted)
    cursor = await connection.execute(_FOUND_BELOW, {**_parameters(organization_id, wanted), **below})
    return [_Charge(*row) for row in await cursor.fetchall()]


async def _add(connection: DriverConnection, organization_id: int, found: Sequence[_Charge]) -> list[_Charge]:
    """Adds the charges to those of the reservations that are still open; returns these charges."""
    by_customer: dict[str, set[str]] = {}
    for one in found:
        by_customer.setdefault(one.customer_id, set()).add(one.reservation_id)

    def of_shard(customer_ids: list[str]) -> dict[str, object]:
        keys = [(one, reservation_id) for one in customer_ids for reservation_id in sorted(by_customer[one])]
        return {
            "organization_id": organization_id,
            "customer_ids": customer_ids,
            "customers": [customer_id for customer_id, _ in keys],
            "reservations": [reservation_id for _, reservation_id in keys],
        }

    held = set(await row_locks.rows(await row_locks.send_by_shard(connection, _LOCK_OPEN, by_customer, of_shard)))
    added = [one for one in found if (one.customer_id, one.reservation_id) in held]
    charges: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for one in added:
        of_one = charges.setdefault((one.customer_id, one.reservation_id), [])
        of_one.append((one.holder_id, one.meter_id, one.amount))
    if added:
        rows = [
            {"customer_id": customer_id, "reservation_id": reservation_id, "charges": of_one}
            for (customer_id, reservation_id), of_one in charges.items()
        ]
        await connection.execute(
            _CHARGE,
            {
                "organization_id": organization_id,
                "customer_ids": sorted({customer_id for customer_id, _ in charges}),
                "added": orjson.dumps(rows).decode(),
            },
        )
    return added


def _sums(charges: Sequence[_Charge], meters: int) -> list[Decimal]:
    sums = [ZERO] * meters
    with exact_arithmetic():
        for one in charges:
            sums[one.position - 1] += Decimal(one.amount)
    return sums


def _parameters(organization_id: int, wanted: Sequence[MeterRecount]) -> dict[str, Any]:
    """Those of the meters; of a rolling window, any time counts."""
    parameters = parameters_of_meters(organization_id, wanted)
    rolling = [one.meter.window.is_rolling for one in wanted]
    for name, always in (("starts", "-infinity"), ("ends", "infinity")):
        spans = parameters[name].split("\t")
        parameters[name] = "\t".join(always if rolls else one for rolls, one in zip(rolling, spans, strict=True))
    return parameters


async def _amounts(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount], statement: str
) -> list[Decimal]:
    cursor = await connection.execute(statement.encode(), _parameters(organization_id, wanted))
    added = [ZERO] * len(wanted)
    for position, amount in await cursor.fetchall():
        added[position - 1] = amount
    return added
