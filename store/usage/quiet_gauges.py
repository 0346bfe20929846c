"""Quiet gauges: those on which a new or changed alert has nothing to report, brought up to date by one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.gauges import Measure
from store.postgres.database import DriverConnection


@dataclass(frozen=True)
class QuietCondition:
    """Which gauges of a measure, without groups, are quiet for an alert.

    plan_id: of the customers; None for all. level: the lowest level of the alert. known_since: a gauge that was
    evaluated at or after this epoch has counted every event since, under the other alerts of now. changed_epoch: of
    the alert.
    """

    alert_id: str
    measure: Measure
    plan_id: str | None
    level: Decimal
    known_since: int
    changed_epoch: int


# Gauges below the alert's lowest level, on which it has no state, and for which nothing else has changed since they
# were evaluated. Customers with alerts of their own are left out: these may have changed as well. SKIP LOCKED: the
# statement never waits for a gauge, so it may lock them in any order. What another transaction has changed when a
# gauge is locked is checked once more.
_SETTLE = """
WITH quiet AS (
    SELECT g.customer_id, g.gauge_id
    FROM customer c
    JOIN gauge g ON g.organization_id = c.organization_id AND g.customer_id = c.customer_id
    WHERE c.organization_id = %(organization_id)s AND c.customer_id = ANY(%(customer_ids)s)
        AND (%(plan_id)s::text IS NULL OR c.plan_id = %(plan_id)s)
        AND g.measure = %(measure)s AND g.subscription_id IS NULL AND g.group_values = '[]'::jsonb
        AND g.scale IS NULL AND g.period_start <= %(now)s AND g.period_end > %(now)s
        AND g.rules_epoch >= greatest(c.changed_epoch, %(known_since)s) AND g.rules_epoch < %(changed_epoch)s
        AND g.value < %(level)s
        AND NOT EXISTS (
            SELECT FROM alert_state s
            WHERE s.organization_id = g.organization_id AND s.customer_id = g.customer_id
                AND s.gauge_id = g.gauge_id AND s.alert_id = %(alert_id)s
        )
        AND NOT EXISTS (
            SELECT FROM alert_exclusion x
            WHERE x.organization_id = g.organization_id AND x.customer_id = g.customer_id
        )
        AND NOT EXISTS (
            SELECT FROM alert a
            WHERE a.organization_id = g.organization_id AND a.customer_id = g.customer_id AND a.state = 'ACTIVE'
        )
    FOR UPDATE OF g SKIP LOCKED
)
UPDATE gauge g SET
    rules_epoch = %(epoch)s, trip_above = least(g.trip_above, %(level)s), update_time = %(now)s
FROM quiet q
WHERE g.organization_id = %(organization_id)s AND g.customer_id = q.customer_id AND g.gauge_id = q.gauge_id
RETURNING g.customer_id
"""


async def settle(
    connection: DriverConnection,
    organization_id: int,
    condition: QuietCondition,
    customer_ids: Sequence[str],
    epoch: int,
    now: datetime,
) -> set[str]:
    """Notes that the quiet gauges of these customers are evaluated at `epoch`; returns these gauges' customers."""
    cursor = await connection.execute(
        _SETTLE,
        {
            "organization_id": organization_id,
            "customer_ids": list(customer_ids),
            "alert_id": condition.alert_id,
            "measure": condition.measure.key,
            "plan_id": condition.plan_id,
            "level": condition.level,
            "known_since": condition.known_since,
            "changed_epoch": condition.changed_epoch,
            "epoch": epoch,
            "now": now,
        },
    )
    return {customer_id for (customer_id,) in await cursor.fetchall()}
