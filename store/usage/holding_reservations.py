"""The open reservations that hold a part of what a gauge measures."""

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from evaluator.aggregation import Aggregation
from store.postgres.database import DriverConnection
from store.usage.metric_conditions import amount
from store.usage.recounts import Recount, conditions, group_value, parameters_of

# Those of one gauge, the largest amounts first. As `recounts.HELD`, with the time at which each expires.
_HOLDING = """
SELECT e.event_id, {amount}, e.expire_time
FROM (SELECT %(customer_id)s::text AS customer_id, %(subscription_id)s::text AS subscription_id,
    %(name)s::text AS name, %(start)s::timestamptz AS period_start, %(end)s::timestamptz AS period_end) AS i,
    (
        SELECT organization_id, customer_id, reservation_id AS event_id, event_time, metric_id,
            NULL::text AS event_name, granted_quantity AS quantity, granted_cost AS cost, currency, subscription_id,
            coalesce(properties, '{{}}'::jsonb) AS properties, expire_time
        FROM reservation WHERE state = 'OPEN'
    ) AS e
WHERE {conditions}
ORDER BY 2 DESC, 3, 1 LIMIT %(most)s
"""


class Holding(NamedTuple):
    """A reservation, and what it holds of a gauge."""

    reservation_id: str
    amount: Decimal
    expire_time: datetime


async def holding(connection: DriverConnection, organization_id: int, recount: Recount, most: int) -> list[Holding]:
    """Up to `most` of the open reservations that hold a part of an additive gauge, the largest first."""
    gauge, kind = recount.gauge, recount.kind
    held = "e.cost" if kind.of_cost else amount(kind.raw_events)
    wanted = [f"{group_value(number)} = %(wanted{number})s::text" for number in range(len(kind.keys))]
    statement = _HOLDING.format(
        amount="1::numeric" if kind.aggregation is Aggregation.COUNT else held,
        conditions=" AND ".join([conditions(kind), *wanted]),
    )
    parameters: dict[str, Any] = {
        "organization_id": organization_id,
        "customer_id": gauge.customer_id,
        "subscription_id": gauge.subscription_id,
        "name": gauge.measure.currency or gauge.measure.metric_id or "",
        "start": gauge.period.start,
        "end": gauge.period.end,
        "most": most,
        **parameters_of(kind),
        **{f"wanted{number}": value for number, (_, value) in enumerate(gauge.group)},
    }
    cursor = await connection.execute(statement.encode(), parameters)
    return [Holding(*row) for row in await cursor.fetchall()]
