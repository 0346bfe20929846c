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


# A customer with more alerts than this is left to the evaluation one by one.
MOST_READ = 100


def unchanged(metric_id: str, currency: str) -> str:
    """A condition on a gauge `x` of a customer `c`: all but a new or changed alert was evaluated on it.

    Since its evaluation no limit of the customer or its plan has changed, and no active alert of the customer on that
    metric or currency; and no alert is disabled for the customer. No raw events count in the metric: of those from
    before its creation a gauge knows nothing. The subqueries are not EXISTS, for which PostgreSQL may read all rows
    of the organization.
    """
    return f"""
        x.rules_epoch >= c.changed_epoch
        AND (
            SELECT m.event_name FROM metric m
            WHERE m.organization_id = %(organization_id)s AND m.metric_id = {metric_id}
        ) IS NULL
        AND (
            SELECT count(*) <= %(most_read)s AND count(*) FILTER (
                WHERE a.changed_epoch > x.rules_epoch AND a.state = 'ACTIVE'
                    AND a.condition ->> 'metric_id' IS NOT DISTINCT FROM {metric_id}
                    AND a.condition ->> 'currency' IS NOT DISTINCT FROM {currency}
            ) = 0
            FROM (
                SELECT * FROM alert WHERE organization_id = %(organization_id)s AND customer_id = c.customer_id
                LIMIT %(most_read)s + 1
            ) AS a
        )
        AND (
            SELECT e.customer_id FROM alert_exclusion e
            WHERE e.organization_id = %(organization_id)s AND e.customer_id = c.customer_id LIMIT 1
        ) IS NULL
        AND (
            SELECT max(l.changed_epoch) FROM usage_limit l
            WHERE l.organization_id = %(organization_id)s AND l.customer_id = c.customer_id
        ) > x.rules_epoch IS NOT TRUE
        AND (
            SELECT max(l.changed_epoch) FROM usage_limit l
            WHERE l.organization_id = %(organization_id)s AND l.plan_id = c.plan_id
        ) > x.rules_epoch IS NOT TRUE
    """


# The gauges of a measure of those customers.
_GAUGES = """
    FROM customer c
    JOIN gauge x ON x.organization_id = c.organization_id AND x.customer_id = c.customer_id
    WHERE c.organization_id = %(organization_id)s AND c.customer_id = ANY(%(customer_ids)s)
        AND (%(plan_id)s::text IS NULL OR c.plan_id = %(plan_id)s)
        AND x.measure = %(measure)s AND x.subscription_id IS NULL AND x.group_values = '[]'::jsonb
        AND x.scale IS NULL AND x.period_start <= %(now)s AND x.period_end > %(now)s
"""

# Gauges below the alert's lowest level, on which it has no state, and for which nothing else has changed since they
# were evaluated; and those on which usage or another transaction has evaluated the alert since its last change. SKIP
# LOCKED: the statement never waits for a gauge, so it may lock them in any order. What another transaction has
# changed when a gauge is locked is checked once more.
_SETTLE = f"""
WITH quiet AS (
    SELECT x.customer_id, x.gauge_id
    {_GAUGES}
        AND x.rules_epoch >= %(known_since)s AND x.rules_epoch < %(changed_epoch)s
        AND x.value < %(level)s
        AND (
            SELECT s.alert_id FROM alert_state s
            WHERE s.organization_id = x.organization_id AND s.customer_id = x.customer_id
                AND s.gauge_id = x.gauge_id AND s.alert_id = %(alert_id)s
        ) IS NULL
        AND {unchanged("%(metric_id)s", "%(currency)s")}
    FOR UPDATE OF x SKIP LOCKED
), settled AS (
    UPDATE gauge g SET
        rules_epoch = %(epoch)s, trip_above = least(g.trip_above, %(level)s), update_time = %(now)s
    FROM quiet q
    WHERE g.organization_id = %(organization_id)s AND g.customer_id = q.customer_id AND g.gauge_id = q.gauge_id
    RETURNING g.customer_id
)
SELECT customer_id FROM settled
UNION ALL
SELECT x.customer_id
{_GAUGES}
    AND x.rules_epoch >= greatest(c.changed_epoch, %(changed_epoch)s)
"""


async def settle(
    connection: DriverConnection,
    organization_id: int,
    condition: QuietCondition,
    customer_ids: Sequence[str],
    epoch: int,
    now: datetime,
) -> set[str]:
    """Notes that the quiet gauges of these customers are evaluated at `epoch`.

    Returns those of the customers for which the alert is evaluated now, or was evaluated before.
    """
    cursor = await connection.execute(
        _SETTLE,
        {
            "organization_id": organization_id,
            "customer_ids": list(customer_ids),
            "alert_id": condition.alert_id,
            "measure": condition.measure.key,
            "metric_id": condition.measure.metric_id,
            "currency": condition.measure.currency,
            "most_read": MOST_READ,
            "plan_id": condition.plan_id,
            "level": condition.level,
            "known_since": condition.known_since,
            "changed_epoch": condition.changed_epoch,
            "epoch": epoch,
            "now": now,
        },
    )
    return {customer_id for (customer_id,) in await cursor.fetchall()}
