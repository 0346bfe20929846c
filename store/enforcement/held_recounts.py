"""Open reservations of usage that a meter counts from now on: they hold a part of it, too.

A reservation takes its part of each meter when it is made. Where a limit begins later, or its holder gets other
customers below it, the reservation gets another charge when the meter is counted. What ends the reservation gives
back all of its charges, so it must know this one: it holds the wallet of the meter's customer, like the transaction
that adds the charge, or it holds the row of the reservation and finds that nothing was added.
"""

from collections.abc import Sequence
from decimal import Decimal

from evaluator.amounts import ZERO
from store.enforcement.meter_recounts import COUNTED, WANTED, MeterRecount, parameters_of_meters
from store.postgres.database import DriverConnection

# What open reservations would hold of each meter, and do not hold yet.
_FOUND = f"""
{WANTED}, found AS MATERIALIZED (
    SELECT i.position, i.holder_id, i.meter_id, r.* FROM {COUNTED} CROSS JOIN LATERAL (
        SELECT r.customer_id, r.reservation_id, CASE i.counts
            WHEN 'COST' THEN r.granted_cost WHEN 'EVENTS' THEN 1 ELSE r.granted_quantity END AS amount
        FROM reservation r
        WHERE r.organization_id = %(organization_id)s AND r.customer_id = i.customer_id AND r.state = 'OPEN'
            AND CASE i.counts WHEN 'COST' THEN r.currency ELSE r.metric_id END = i.name COLLATE "C"
            AND r.event_time >= i.period_start AND r.event_time < i.period_end
            AND (i.subscription_id IS NULL OR r.subscription_id = i.subscription_id COLLATE "C")
            AND coalesce(r.properties, '{{}}') @> i.group_values
            AND NOT coalesce(r.charges @> jsonb_build_array(jsonb_build_array(i.holder_id, i.meter_id)), false)
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


async def hold(connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]) -> list[Decimal]:
    """What open reservations hold of each meter from now on and did not hold before.

    As if the limit had stood when they were made: of a rolling window, they count whatever their time is. The
    transaction must hold the wallets of the meters' customers. Costs a look-up for each customer below.
    """
    return await _amounts(connection, organization_id, wanted, _ADD)


# The sum for each meter, without an effect.
_WOULD = f"{_FOUND} SELECT position, sum(amount) FROM found GROUP BY 1"


async def would_hold(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount]
) -> list[Decimal]:
    """What `hold` would return. Changes nothing."""
    return await _amounts(connection, organization_id, wanted, _WOULD)


async def _amounts(
    connection: DriverConnection, organization_id: int, wanted: Sequence[MeterRecount], statement: str
) -> list[Decimal]:
    parameters = parameters_of_meters(organization_id, wanted)
    rolling = [one.meter.window.is_rolling for one in wanted]
    for name, always in (("starts", "-infinity"), ("ends", "infinity")):
        spans = parameters[name].split("\t")
        parameters[name] = "\t".join(always if rolls else one for rolls, one in zip(rolling, spans, strict=True))
    cursor = await connection.execute(statement.encode(), parameters)
    added = [ZERO] * len(wanted)
    for position, amount in await cursor.fetchall():
        added[position - 1] = amount
    return added
