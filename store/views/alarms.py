"""Gauges in alarm, over all customers of an organization: pages of them, the latest change first, and totals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evaluator.gauges import Gauge, Measure
from evaluator.periods import Period
from runtime.turns import Slices
from store.alerts.state_json import state_from_json
from store.postgres.database import Connection, driver
from store.postgres.distributed import Forms, on_cluster
from store.views import alarm_candidates
from store.views.alarm_candidates import AlarmFilter, Position, formatted, parameters_of
from store.views.customer_gauges import ShownState, StoredGauge, decoded

MAX_COUNTED = 100_000  # states in alarm, and customers, that totals count; they say when there are more
MAX_ALERTS_COUNTED = 100  # alerts in the totals, those with most gauges in alarm first
CHUNK = 200  # candidates that one statement checks


@dataclass(frozen=True)
class Alarm:
    """A gauge on which an alert is in alarm."""

    position: Position
    stored: StoredGauge
    state: ShownState


@dataclass(frozen=True)
class AlertTotal:
    """On how many gauges, of how many customers, an alert is in alarm."""

    alert_id: str
    name: str
    gauge_count: int
    customer_count: int
    evaluating: bool


@dataclass(frozen=True)
class Totals:
    """The totals of each alert, and the number of customers, in alarm or not.

    Both count up to MAX_COUNTED. truncated: there are more states in alarm, or more alerts, than are counted.
    """

    alerts: Sequence[AlertTotal]
    customer_count: int
    truncated: bool


# The conditions under which GetCustomerAlert shows a state as IN_ALARM.
_BELONGS = """
JOIN gauge g
    ON g.organization_id = s.organization_id AND g.customer_id = s.customer_id AND g.gauge_id = s.gauge_id
JOIN alert a ON a.organization_id = s.organization_id AND a.alert_id = s.alert_id
LEFT JOIN customer c ON c.organization_id = s.organization_id AND c.customer_id = s.customer_id
LEFT JOIN subscription u
    ON u.organization_id = s.organization_id AND u.customer_id = s.customer_id
    AND u.subscription_id = g.subscription_id
WHERE s.organization_id = %(organization_id)s AND s.reached <> '{}'::jsonb
    AND g.period_start <= %(now)s AND g.period_end > %(now)s
    AND a.state = 'ACTIVE' AND s.alert_version >= a.reset_version
    AND (a.visit_after IS NULL OR a.visit_after >= s.customer_id)
    AND (a.scope NOT IN ('PLAN', 'CUSTOMER_PLAN')
        OR CASE WHEN g.subscription_id IS NULL THEN c.plan_id ELSE u.plan_id END = a.plan_id)
    AND NOT EXISTS (
        SELECT 1 FROM alert_exclusion e
        WHERE e.organization_id = s.organization_id AND e.customer_id = s.customer_id AND e.alert_id = s.alert_id
            AND (e.subscription_id = '' OR e.subscription_id = g.subscription_id)
    )
"""

_COMPARED = (
    """
SELECT s.customer_id, s.gauge_id, s.alert_id, s.reached, s.sequence, s.change_time, s.change_reason,
    g.value, g.subscription_id, g.measure, g.group_values, g.period_start, g.period_end
FROM unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[],
    string_to_array(%(alert_ids)s, E'\t')
) AS i (customer_id, gauge_id, alert_id)
JOIN alert_state s
    ON s.organization_id = %(organization_id)s AND s.customer_id = i.customer_id COLLATE "C"
    AND s.gauge_id = i.gauge_id AND s.alert_id = i.alert_id COLLATE "C"
"""
    + _BELONGS
)
# On a cluster, alerts lie apart: those of the page are found before, and sent to the nodes of the states.
_COMPARED_APART = f"""
WITH own AS MATERIALIZED (
    SELECT * FROM alert
    WHERE organization_id = %(organization_id)s AND alert_id = ANY(string_to_array(%(alert_ids)s, E'\t'))
)
{_COMPARED.replace("JOIN alert a", "JOIN own a")}
    AND s.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))
"""
_COMPARED_FORMS = Forms(_COMPARED.encode(), _COMPARED_APART.encode())


async def page(
    connection: Connection,
    organization_id: int,
    alarm_filter: AlarmFilter,
    now: datetime,
    *,
    after: Position | None,
    limit: int,
) -> tuple[list[Alarm], Position | None]:
    """Up to `limit` alarms in order, and the position after which to continue; None at the end.

    after: the position of the last alarm seen. There may be fewer alarms than `limit` although more follow: a
    statement checks a bounded number of candidates, and some do not count, such as those of a disabled alert.
    The transaction must be a snapshot.
    """
    raw = await driver(connection)
    chunk = max(limit, CHUNK)
    positions = await alarm_candidates.read(raw, organization_id, alarm_filter, now, after, chunk)
    rows = await raw.execute(
        _COMPARED_FORMS.on(raw),
        {
            "organization_id": organization_id,
            "now": now,
            "customer_ids": "\t".join([position.customer_id for position in positions]),
            "gauge_ids": "\t".join([position.gauge_id.hex for position in positions]),
            "alert_ids": "\t".join([position.alert_id for position in positions]),
        },
    )
    found = {(row[0], row[1], row[2]): row async for row in decoded(rows, organization_id)}
    alarms, slices = list[Alarm](), Slices(organization_id)
    for position in positions:
        if (row := found.get(position[1:])) is not None:
            alarms.append(_alarm(position, row))
        await slices.pause()
    if len(alarms) > limit:
        return alarms[:limit], alarms[limit - 1].position
    return alarms, positions[-1] if len(positions) == chunk else None


def _alarm(position: Position, row: Sequence[Any]) -> Alarm:
    gauge = Gauge(
        customer_id=row[0],
        subscription_id=row[8],
        measure=Measure.from_key(row[9], row[8] is not None),
        group=tuple((key, value) for key, value in row[10]),
        period=Period(row[11], row[12]),
    )
    state = ShownState(state_from_json(row[3]), row[4], row[5], row[6])
    return Alarm(position, StoredGauge(row[1], gauge, row[7]), state)


# The states that are counted, up to a number.
_CANDIDATES = """
WITH candidate AS MATERIALIZED (
    SELECT s.customer_id, s.gauge_id, s.alert_id, s.alert_version
    FROM alert_state s
    WHERE s.organization_id = %(organization_id)s AND s.period_end > %(now)s AND s.reached <> '{}'::jsonb
        AND {filter}
    LIMIT %(most)s
)"""

# Alerts are read once, and customers and subscriptions only for alerts of plans. Each state is compared with its
# gauge, because one of a period that has not begun yet does not count.
_TOTALS = (
    _CANDIDATES
    + """, of_alert AS MATERIALIZED (
    SELECT a.alert_id, a.name, a.visit_after, a.reset_version,
        CASE WHEN a.scope IN ('PLAN', 'CUSTOMER_PLAN') THEN a.plan_id END AS plan_id,
        EXISTS (
            SELECT 1 FROM alert_exclusion e
            WHERE e.organization_id = %(organization_id)s AND e.alert_id = a.alert_id
        ) AS is_excluded
    FROM alert a
    WHERE a.organization_id = %(organization_id)s AND a.state = 'ACTIVE'
        AND a.alert_id = ANY(ARRAY(SELECT DISTINCT alert_id FROM candidate))
)
SELECT a.alert_id, a.name, count(*), count(DISTINCT s.customer_id), a.visit_after IS NOT NULL,
    (SELECT count(*) FROM candidate) = %(most)s
FROM of_alert a
JOIN candidate s ON s.alert_id = a.alert_id AND s.alert_version >= a.reset_version
    AND (a.visit_after IS NULL OR a.visit_after >= s.customer_id)
JOIN gauge g ON g.organization_id = %(organization_id)s AND g.customer_id = s.customer_id AND g.gauge_id = s.gauge_id
    AND g.period_start <= %(now)s AND g.period_end > %(now)s
WHERE (a.plan_id IS NULL OR a.plan_id = CASE
        WHEN g.subscription_id IS NULL THEN (
            SELECT c.plan_id FROM customer c
            WHERE c.organization_id = %(organization_id)s AND c.customer_id = s.customer_id
        ) ELSE (
            SELECT u.plan_id FROM subscription u
            WHERE u.organization_id = %(organization_id)s AND u.customer_id = s.customer_id
                AND u.subscription_id = g.subscription_id
        ) END)
    AND NOT (a.is_excluded AND EXISTS (
        SELECT 1 FROM alert_exclusion e
        WHERE e.organization_id = %(organization_id)s AND e.customer_id = s.customer_id AND e.alert_id = s.alert_id
            AND (e.subscription_id = '' OR e.subscription_id = g.subscription_id)
    ))
GROUP BY a.alert_id, a.name, a.visit_after
ORDER BY 3 DESC, 1
LIMIT %(alerts)s
"""
)

# On a cluster, states and alerts are found one after the other, and sent to the nodes of the gauges.
_TOTALS_APART = (
    _CANDIDATES
    + """, of_alert AS MATERIALIZED (
    SELECT a.alert_id, a.name, a.visit_after, a.reset_version,
        CASE WHEN a.scope IN ('PLAN', 'CUSTOMER_PLAN') THEN a.plan_id END AS plan_id
    FROM alert a
    WHERE a.organization_id = %(organization_id)s AND a.state = 'ACTIVE'
        AND a.alert_id IN (SELECT alert_id FROM candidate)
), counted AS MATERIALIZED (
    SELECT count(*) = %(most)s AS is_full FROM candidate
)
SELECT a.alert_id, a.name, count(*), count(DISTINCT g.customer_id), a.visit_after IS NOT NULL, counted.is_full
FROM gauge g
JOIN candidate s ON s.customer_id = g.customer_id AND s.gauge_id = g.gauge_id
JOIN of_alert a ON a.alert_id = s.alert_id AND s.alert_version >= a.reset_version
    AND (a.visit_after IS NULL OR a.visit_after >= s.customer_id)
CROSS JOIN counted
LEFT JOIN customer c ON c.organization_id = g.organization_id AND c.customer_id = g.customer_id
LEFT JOIN subscription u ON u.organization_id = g.organization_id AND u.customer_id = g.customer_id
    AND u.subscription_id = g.subscription_id
WHERE g.organization_id = %(organization_id)s AND g.period_start <= %(now)s AND g.period_end > %(now)s
    AND (a.plan_id IS NULL
        OR a.plan_id = CASE WHEN g.subscription_id IS NULL THEN c.plan_id ELSE u.plan_id END)
    AND NOT EXISTS (
        SELECT 1 FROM alert_exclusion e
        WHERE e.organization_id = g.organization_id AND e.customer_id = g.customer_id AND e.alert_id = a.alert_id
            AND (e.subscription_id = '' OR e.subscription_id = g.subscription_id)
    )
GROUP BY a.alert_id, a.name, a.visit_after, counted.is_full
ORDER BY 3 DESC, 1
LIMIT %(alerts)s
"""
)

_CUSTOMERS = """
SELECT count(*) FROM (
    SELECT 1 FROM customer s WHERE s.organization_id = %(organization_id)s AND {filter} LIMIT %(most)s
) known
"""


async def totals(connection: Connection, organization_id: int, alarm_filter: AlarmFilter, now: datetime) -> Totals:
    """The totals of an organization; alerts with most gauges in alarm come first."""
    raw = await driver(connection)
    parameters = {
        **parameters_of(organization_id, alarm_filter, now),
        "most": MAX_COUNTED,
        "alerts": MAX_ALERTS_COUNTED + 1,
    }
    statement = _TOTALS_APART if on_cluster(raw) else _TOTALS
    rows = await (await raw.execute(formatted(statement, alarm_filter), parameters)).fetchall()
    customers = formatted(_CUSTOMERS, AlarmFilter(alarm_filter.customer_ids))
    counted = await (await raw.execute(customers, parameters)).fetchone()
    assert counted is not None, "a count is one row"
    return Totals(
        alerts=[AlertTotal(*row[:5]) for row in rows[:MAX_ALERTS_COUNTED]],
        customer_count=counted[0],
        truncated=len(rows) > MAX_ALERTS_COUNTED or any(row[5] for row in rows),
    )


# Gives states that a server of the version before wrote the ends of their gauges' periods.
_COMPLETE_SOME = """
WITH incomplete AS (
    SELECT s.organization_id, s.customer_id, s.gauge_id, s.alert_id
    FROM alert_state s
    WHERE s.organization_id = %(organization_id)s AND s.period_end = 'infinity' AND s.reached <> '{}'::jsonb
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE alert_state s SET period_end = g.period_end
FROM incomplete i
JOIN gauge g
    ON g.organization_id = i.organization_id AND g.customer_id = i.customer_id AND g.gauge_id = i.gauge_id
WHERE s.organization_id = i.organization_id AND s.customer_id = i.customer_id AND s.gauge_id = i.gauge_id
    AND s.alert_id = i.alert_id
"""
# On a cluster, rows of several customers cannot be locked before: all at once, with a wait for those that are locked.
_COMPLETE_ALL = """
UPDATE alert_state s SET period_end = g.period_end
FROM gauge g
WHERE g.organization_id = s.organization_id AND g.customer_id = s.customer_id AND g.gauge_id = s.gauge_id
    AND s.organization_id = %(organization_id)s AND s.period_end = 'infinity' AND s.reached <> '{}'::jsonb
"""
_COMPLETE = Forms(_COMPLETE_SOME.encode(), _COMPLETE_ALL.encode())


_PROBE_OF_EACH = """
SELECT o.organization_id FROM organization o
WHERE EXISTS (
    SELECT 1 FROM alert_state s
    WHERE s.organization_id = o.organization_id AND s.period_end = 'infinity' AND s.reached <> '{}'::jsonb
)
ORDER BY o.organization_id
"""
# On a cluster, organizations lie apart from states: one pass over the index of states in alarm.
_OF_STATES = """
SELECT DISTINCT organization_id FROM alert_state
WHERE period_end = 'infinity' AND reached <> '{}'::jsonb ORDER BY organization_id
"""
_INCOMPLETE = Forms(_PROBE_OF_EACH.encode(), _OF_STATES.encode())


async def organizations_to_complete(connection: Connection) -> list[int]:
    """The organizations with states for `complete`: one probe of an index for each organization."""
    raw = await driver(connection)
    return [row[0] for row in await (await raw.execute(_INCOMPLETE.on(raw))).fetchall()]


async def complete(connection: Connection, organization_id: int, limit: int) -> int:
    """Sets period_end in states that an older version wrote without it; returns the number of states it changed.

    It skips locked rows: the evaluation that holds the lock writes period_end itself.
    """
    raw = await driver(connection)
    cursor = await raw.execute(_COMPLETE.on(raw), {"organization_id": organization_id, "limit": limit})
    return cursor.rowcount
