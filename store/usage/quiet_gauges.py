"""Quiet gauges: those on which a new or changed alert has nothing to report, brought up to date by one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.gauges import Gauge, Measure
from store.postgres.database import DriverConnection
from store.postgres.distributed import Forms, on_cluster


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


# Of alerts of given customers. In this form no index answers it: PostgreSQL could take all active alerts of the
# organization from one, while it does not know how many there are.
IS_ACTIVE = "(state = 'ACTIVE') IS TRUE"

# A table `changes` with one row: by name, the epoch at which something last changed that concerns the gauges of the
# customers in the parameter `customer_ids`. Their active alerts by metric and currency, their limits, the limits of
# plans; and for ever where an alert is disabled for the customer, or raw events count in the metric: of those from
# before its creation a gauge knows nothing. Each table is read once. Subqueries and joins for each gauge would depend
# on statistics: after a table has grown, PostgreSQL may read all rows of the organization for each of them.
CHANGES = f"""
changes AS MATERIALIZED (
    SELECT jsonb_object_agg(name, epoch) AS by_name FROM (
        SELECT concat_ws(E'\t', 'alert', customer_id, coalesce(condition ->> 'metric_id', ''),
                   coalesce(condition ->> 'currency', '')) AS name,
               max(changed_epoch) AS epoch
        FROM alert
        WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s) AND {IS_ACTIVE}
        GROUP BY 1
        UNION ALL
        SELECT concat_ws(E'\t', 'customer', customer_id), max(changed_epoch) FROM usage_limit
        WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s) GROUP BY 1
        UNION ALL
        SELECT concat_ws(E'\t', 'plan', plan_id), max(changed_epoch) FROM usage_limit
        WHERE organization_id = %(organization_id)s AND plan_id IS NOT NULL GROUP BY 1
        UNION ALL
        SELECT DISTINCT concat_ws(E'\t', 'excluded', customer_id), 9223372036854775807 FROM alert_exclusion
        WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
        UNION ALL
        SELECT concat_ws(E'\t', 'raw', metric_id), 9223372036854775807 FROM metric
        WHERE organization_id = %(organization_id)s AND event_name IS NOT NULL
    ) AS one
)
"""


def unchanged(metric_id: str, currency: str) -> str:
    """A condition on a gauge `x` of a customer `c`: all but a new or changed alert was evaluated on it.

    Since its evaluation nothing of the customer has changed, and nothing in `changes`.
    """
    names = (
        f"concat_ws(E'\t', 'alert', c.customer_id, coalesce({metric_id}, ''), coalesce({currency}, ''))",
        "concat_ws(E'\t', 'customer', c.customer_id)",
        "concat_ws(E'\t', 'plan', c.plan_id)",
        "concat_ws(E'\t', 'excluded', c.customer_id)",
        f"concat_ws(E'\t', 'raw', {metric_id})",
    )
    epochs = ", ".join(f"((SELECT by_name FROM changes) ->> {name})::bigint" for name in names)
    return f"x.rules_epoch >= greatest(c.changed_epoch, {epochs})"


# The gauges of a measure of those customers. The ranges keep a plan for a small table from reading all of the table.
_GAUGES = """
    FROM unnest(%(customer_ids)s::text[]) AS i (customer_id)
    JOIN customer c ON c.organization_id = %(organization_id)s AND c.customer_id = i.customer_id COLLATE "C"
    JOIN gauge x ON x.organization_id = %(organization_id)s AND x.customer_id = i.customer_id COLLATE "C"
    WHERE c.customer_id BETWEEN %(first)s AND %(last)s AND x.customer_id BETWEEN %(first)s AND %(last)s
        AND (%(plan_id)s::text IS NULL OR c.plan_id = %(plan_id)s)
        AND x.measure = %(measure)s AND x.subscription_id IS NULL AND x.group_values = '[]'::jsonb
        AND x.scale IS NULL AND x.period_start <= %(now)s AND x.period_end > %(now)s
"""

# Gauges below the alert's lowest level, on which it has no state, and for which nothing else has changed since they
# were evaluated; and those on which usage or another transaction has evaluated the alert since its last change. SKIP
# LOCKED: the statement never waits for a gauge, so it may lock them in any order. What another transaction has
# changed when a gauge is locked is checked once more.
_SETTLE = f"""
WITH {CHANGES}, quiet AS (
    SELECT x.customer_id, x.gauge_id
    {_GAUGES}
        AND x.rules_epoch >= %(known_since)s AND x.rules_epoch < %(changed_epoch)s
        AND x.value < %(level)s
        AND x.gauge_id <> ALL (ARRAY(
            SELECT gauge_id FROM alert_state
            WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
                AND alert_id = %(alert_id)s
        ))
        AND {unchanged("%(metric_id)s::text", "%(currency)s::text")}
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

    Returns those of the customers for which the alert is evaluated now, or was evaluated before. On a cluster, these
    are none: the statement reads tables that lie apart. Then the alert is evaluated on each of the customers.
    """
    if on_cluster(connection):
        return set()
    cursor = await connection.execute(
        _SETTLE,
        {
            "organization_id": organization_id,
            "customer_ids": list(customer_ids),
            "first": min(customer_ids, default=""),
            "last": max(customer_ids, default=""),
            "alert_id": condition.alert_id,
            "measure": condition.measure.key,
            "metric_id": condition.measure.metric_id,
            "currency": condition.measure.currency,
            "plan_id": condition.plan_id,
            "level": condition.level,
            "known_since": condition.known_since,
            "changed_epoch": condition.changed_epoch,
            "epoch": epoch,
            "now": now,
        },
    )
    return {customer_id for (customer_id,) in await cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Quiet:
    """A gauge on which new alerts have nothing to report. level: the lowest one of theirs."""

    gauge: Gauge
    level: Decimal


# Each column as one text, see `store.usage.gauge_moves`.
_SETTLE_MOVED = """
UPDATE gauge g SET
    rules_epoch = %(epoch)s, trip_above = least(g.trip_above, i.level), update_time = %(now)s
FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[],
    string_to_array(%(levels)s, E'\t')::numeric[]
) AS i (customer_id, gauge_id, level)
WHERE g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id {shards}
"""
_SETTLE_THOSE = Forms.naming_shards(_SETTLE_MOVED, r"g.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))")


async def settle_moved(
    connection: DriverConnection, organization_id: int, quiet: Sequence[Quiet], epoch: int, now: datetime
) -> None:
    """Notes that quiet gauges are evaluated at `epoch`. The transaction must hold their locks."""
    await connection.execute(
        _SETTLE_THOSE.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([one.gauge.customer_id for one in quiet]),
            "gauge_ids": "\t".join([one.gauge.gauge_hex for one in quiet]),
            "levels": "\t".join([str(one.level) for one in quiet]),
            "epoch": epoch,
            "now": now,
        },
    )
