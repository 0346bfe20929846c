"""Quiet at creation: new alerts of customers that have nothing to report yet, and so need no backfill.

Most new alerts are on a customer that nothing is known of, or on a gauge that is up to date and below their lowest
level. The statement that creates them finds these alerts, and brings their gauges up to date.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from evaluator.alerts import AlertRule, ScopeKind
from evaluator.definitions import AlertDefinition
from evaluator.thresholds import Direction
from evaluator.transitions import AlertState, trip_levels
from store.usage.quiet_gauges import CHANGES, IS_ACTIVE, unchanged

# A customer with more gauges than this is left to the backfill: the organization's lock is held.
MOST_READ = 100


@dataclass(frozen=True, slots=True)
class WideWatch:
    """What the wide alerts on one measure, without groups, say about its gauges.

    counted_since: since this epoch an alert of all customers has watched without a gap; None if there is none.
    changed_epoch: of the last change of any of them.
    """

    counted_since: int | None
    changed_epoch: int


@dataclass(frozen=True, slots=True)
class WideWatches:
    """The wide alerts as of an epoch.

    by_measure: by the key of the measure; one that is missing has no wide alert.
    """

    epoch: int
    by_measure: Mapping[str, WideWatch] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """The parameters of FOUND."""
        rows = [
            {"measure": measure, "counted_since": watch.counted_since, "changed_epoch": watch.changed_epoch}
            for measure, watch in self.by_measure.items()
        ]
        return {"wide": orjson.dumps(rows).decode(), "wide_epoch": self.epoch, "most_read": MOST_READ}


NOT_SETTLED = {"wide": "[]", "wide_epoch": None, "most_read": MOST_READ}  # parameters with which no gauge is settled


def simple_rule(definition: AlertDefinition) -> AlertRule | None:
    """The rule of an alert on one gauge of one customer, of which only the value decides; None for other alerts."""
    if definition.scope.kind is not ScopeKind.CUSTOMER or definition.condition.condition_type.per_subscription:
        return None
    rule = definition.active_rule()
    if rule is None or rule.groups or rule.overrides or rule.has_percentages:
        return None
    if rule.measure.of_facts or rule.measure.contract_fields or rule.measure.counts_held:
        return None
    return rule if rule.thresholds.direction is Direction.RISING else None


def quiet_columns(rule: AlertRule | None) -> dict[str, str | None]:
    """The values of QUIET_COLUMNS for a simple rule: the measure of the alert's gauge, and its lowest level."""
    level = None if rule is None else trip_levels(rule.thresholds, AlertState())[0]
    if rule is None or level is None:
        return dict.fromkeys(QUIET_COLUMNS)
    return {"measure": rule.measure.key, "level": str(level)}


QUIET_COLUMNS = {"measure": "text", "level": "numeric"}  # of the table `wanted`, beside the columns of an alert

# Of the alerts in `wanted` that name a customer and wait for a backfill: whether the customer is unknown, or has a
# quiet gauge. A gauge is quiet if its value is below the level, and if all other alerts were evaluated on it as they
# are. All new alerts of a customer have to be quiet, because its gauges are then taken as evaluated for all of them.
# The transaction holds the organization's lock exclusively, so no other one moves a gauge or registers a customer; so
# it also leaves customers with very many gauges to the backfill.
FOUND = f"""
{CHANGES}, counted AS MATERIALIZED (
    -- Since when active alerts of these customers have watched without a gap, by what they measure.
    SELECT jsonb_object_agg(name, epoch) AS by_name FROM (
        SELECT concat_ws(E'\t', customer_id, scope, condition_type, condition) AS name, min(watching_epoch) AS epoch
        FROM alert
        WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s) AND {IS_ACTIVE}
        GROUP BY 1
    ) AS one
), wide AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(wide)s::json)
        AS wide (measure text, counted_since bigint, changed_epoch bigint)
), wide_stand AS MATERIALIZED (
    -- The order takes the last change from an index, whatever statistics PostgreSQL has.
    SELECT %(wide_epoch)s::bigint >= coalesce((
        SELECT changed_epoch FROM alert WHERE organization_id = %(organization_id)s AND customer_id IS NULL
        ORDER BY changed_epoch DESC LIMIT 1
    ), 0) AS stand
), found AS MATERIALIZED (
    SELECT w.alert_id, w.level, c.customer_id, g.gauge_id, c.customer_id IS NULL AS unknown,
           bool_and(g.gauge_id IS NOT NULL) OVER (PARTITION BY w.customer_id) AS quiet
    FROM wanted w
    LEFT JOIN customer c ON c.organization_id = %(organization_id)s AND c.customer_id = w.customer_id
        AND c.customer_id = ANY(%(customer_ids)s)
    LEFT JOIN wide v ON v.measure = w.measure
    LEFT JOIN LATERAL (
        SELECT x.gauge_id
        FROM (
            SELECT *, count(*) OVER () AS gauges FROM (
                SELECT * FROM gauge
                WHERE organization_id = %(organization_id)s AND customer_id = c.customer_id
                    AND w.measure IS NOT NULL AND (SELECT stand FROM wide_stand)
                LIMIT %(most_read)s + 1
            ) AS read
        ) AS x
        WHERE x.gauges <= %(most_read)s AND x.measure = w.measure AND x.subscription_id IS NULL
            AND x.group_values = '[]'::jsonb AND x.scale IS NULL
            AND x.period_start <= %(now)s AND x.period_end > %(now)s
            AND x.value < w.level AND x.rules_epoch >= coalesce(v.changed_epoch, 0)
            AND {unchanged("w.condition ->> 'metric_id'", "w.condition ->> 'currency'")}
            AND x.rules_epoch >= least(v.counted_since, (
                (SELECT by_name FROM counted)
                ->> concat_ws(E'\t', w.customer_id, w.scope, w.condition_type, w.condition)
            )::bigint)
        LIMIT 1
    ) AS g ON true
    WHERE w.customer_id IS NOT NULL AND w.visit_after IS NOT NULL
)
"""

# Brings the gauges of those that are in `saved` up to date.
SETTLED = """
settled AS (
    UPDATE gauge g SET rules_epoch = %(epoch)s, trip_above = least(g.trip_above, q.level), update_time = %(now)s
    FROM (
        SELECT customer_id, gauge_id, min(level) AS level FROM found JOIN saved USING (alert_id)
        WHERE quiet GROUP BY customer_id, gauge_id
    ) AS q
    WHERE g.organization_id = %(organization_id)s AND g.customer_id = q.customer_id AND g.gauge_id = q.gauge_id
)
"""
