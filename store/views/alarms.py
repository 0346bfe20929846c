"""What is in alarm now, over all customers of an organization: pages of gauges, the latest first, and totals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from evaluator.gauges import Gauge, Measure
from evaluator.periods import Period
from store.postgres.database import Connection, driver
from store.usage.evaluations import state_from_json
from store.views.customer_gauges import Measured, Remembered

MAX_COUNTED = 100_000  # states in alarm, and customers, that totals count; more are said to be more
MAX_ALERTS_COUNTED = 100  # alerts of which totals are shown, those with most in alarm first
CHUNK = 200  # candidates that are compared with what they belong to in one statement

NEVER = datetime.min.replace(
    tzinfo=UTC
)  # stands for the change_time of what was silently past its line from the start


class Place(NamedTuple):
    """Where an alarm stands in the order: the latest first, then by its key, downwards."""

    change_time: datetime
    customer_id: str
    gauge_id: UUID
    alert_id: str


@dataclass(frozen=True)
class Narrowed:
    """Which alarms: of these customers and of these alerts; of all where there is none."""

    customer_ids: Sequence[str] = ()
    alert_ids: Sequence[str] = ()


@dataclass(frozen=True)
class Alarm:
    """A gauge that an alert is in alarm on."""

    place: Place
    measured: Measured
    remembered: Remembered


@dataclass(frozen=True)
class AlertTotal:
    """How many gauges of how many customers an alert is in alarm on."""

    alert_id: str
    name: str
    gauge_count: int
    customer_count: int
    evaluating: bool


@dataclass(frozen=True)
class Totals:
    """Of each alert how often it is in alarm, and how many customers there are, in alarm or not.

    Both count up to MAX_COUNTED. truncated: more is in alarm, of more alerts, than `alerts` counts.
    """

    alerts: Sequence[AlertTotal]
    customer_count: int
    truncated: bool


# Reads nothing but the index: states of ended periods are behind it, and of those in alarm only the first are kept.
_CANDIDATES = """
SELECT coalesce(s.change_time, %(never)s) AS change_time, s.customer_id, s.gauge_id, s.alert_id
FROM alert_state s
WHERE s.organization_id = %(organization_id)s AND s.period_end > %(now)s AND s.reached <> '{}'::jsonb
    AND {narrowed} AND {after}
ORDER BY 1 DESC, 2 DESC, 3 DESC, 4 DESC
LIMIT %(limit)s
"""

# What an alarm has to meet to be shown: the same as what GetCustomerAlert shows as IN_ALARM.
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
    AND (a.scope <> 'PLAN'
        OR CASE WHEN g.subscription_id IS NULL THEN c.plan_id ELSE u.plan_id END = a.plan_id)
    AND NOT EXISTS (
        SELECT FROM alert_exclusion e
        WHERE e.organization_id = s.organization_id AND e.customer_id = s.customer_id AND e.alert_id = s.alert_id
            AND (e.subscription_id = '' OR e.subscription_id = g.subscription_id)
    )
"""

_COMPARED = (
    """
SELECT s.customer_id, s.gauge_id, s.alert_id, s.reached, s.sequence, s.change_time, s.change_reason,
    g.value, g.subscription_id, g.measure, g.group_values, g.period_start, g.period_end
FROM unnest(%(customer_ids)s::text[], %(gauge_ids)s::uuid[], %(alert_ids)s::text[])
    AS i (customer_id, gauge_id, alert_id)
JOIN alert_state s
    ON s.organization_id = %(organization_id)s AND s.customer_id = i.customer_id COLLATE "C"
    AND s.gauge_id = i.gauge_id AND s.alert_id = i.alert_id COLLATE "C"
"""
    + _BELONGS
)


async def page(
    connection: Connection,
    organization_id: int,
    narrowed: Narrowed,
    now: datetime,
    *,
    after: Place | None,
    limit: int,
) -> tuple[list[Alarm], Place | None]:
    """Up to `limit` alarms in their order, and the place behind which to go on; None at the end.

    after: the place of the last one seen. There may be fewer alarms than `limit` though more follow: a statement
    looks at a bounded number of candidates, of which some may not count, such as those of a disabled alert.
    The transaction must see one moment.
    """
    raw = await driver(connection)
    chunk = max(limit, CHUNK)
    places = [
        Place(*row)
        for row in await (
            await raw.execute(
                _formatted(_CANDIDATES, narrowed, _AFTER if after is not None else "true"),
                {
                    **_parameters(organization_id, narrowed, now),
                    "never": NEVER,
                    "limit": chunk,
                    **({} if after is None else {f"after_{name}": part for name, part in after._asdict().items()}),
                },
            )
        ).fetchall()
    ]
    rows = await raw.execute(
        _COMPARED,
        {
            "organization_id": organization_id,
            "now": now,
            "customer_ids": [place.customer_id for place in places],
            "gauge_ids": [place.gauge_id for place in places],
            "alert_ids": [place.alert_id for place in places],
        },
    )
    found = {(row[0], row[1], row[2]): row for row in await rows.fetchall()}
    alarms = [_alarm(place, found[place[1:]]) for place in places if place[1:] in found]
    if len(alarms) > limit:
        return alarms[:limit], alarms[limit - 1].place
    return alarms, places[-1] if len(places) == chunk else None


_AFTER = """
(coalesce(s.change_time, %(never)s), s.customer_id, s.gauge_id, s.alert_id)
    < (%(after_change_time)s, %(after_customer_id)s COLLATE "C", %(after_gauge_id)s, %(after_alert_id)s COLLATE "C")
"""


def _formatted(statement: str, narrowed: Narrowed, after: str = "true") -> str:
    conditions = ["true"]
    if narrowed.customer_ids:
        conditions.append("s.customer_id = ANY(%(only_customer_ids)s::text[])")
    if narrowed.alert_ids:
        conditions.append("s.alert_id = ANY(%(only_alert_ids)s::text[])")
    return statement.replace("{narrowed}", " AND ".join(conditions)).replace("{after}", after)


def _parameters(organization_id: int, narrowed: Narrowed, now: datetime) -> dict[str, Any]:
    return {
        "organization_id": organization_id,
        "now": now,
        "only_customer_ids": list(narrowed.customer_ids),
        "only_alert_ids": list(narrowed.alert_ids),
    }


def _alarm(place: Place, row: Sequence[Any]) -> Alarm:
    gauge = Gauge(
        customer_id=row[0],
        subscription_id=row[8],
        measure=Measure.from_key(row[9], row[8] is not None),
        group=tuple((key, value) for key, value in row[10]),
        period=Period(row[11], row[12]),
    )
    remembered = Remembered(state_from_json(row[3]), row[4], row[5], row[6])
    return Alarm(place, Measured(row[1], gauge, row[7]), remembered)


_TOTALS = (
    """
WITH candidate AS MATERIALIZED (
    SELECT s.organization_id, s.customer_id, s.gauge_id, s.alert_id, s.alert_version, s.reached
    FROM alert_state s
    WHERE s.organization_id = %(organization_id)s AND s.period_end > %(now)s AND s.reached <> '{}'::jsonb
        AND {narrowed}
    LIMIT %(most)s
)
SELECT a.alert_id, a.name, count(*), count(DISTINCT s.customer_id), a.visit_after IS NOT NULL,
    (SELECT count(*) FROM candidate) = %(most)s
FROM candidate s
"""
    + _BELONGS
    + """
GROUP BY a.organization_id, a.alert_id
ORDER BY 3 DESC, 1
LIMIT %(alerts)s
"""
)

_CUSTOMERS = """
SELECT count(*) FROM (
    SELECT FROM customer s WHERE s.organization_id = %(organization_id)s AND {narrowed} LIMIT %(most)s
) known
"""


async def totals(connection: Connection, organization_id: int, narrowed: Narrowed, now: datetime) -> Totals:
    """How often alerts are in alarm; the alerts that are most often come first."""
    raw = await driver(connection)
    parameters = {
        **_parameters(organization_id, narrowed, now),
        "most": MAX_COUNTED,
        "alerts": MAX_ALERTS_COUNTED + 1,
    }
    rows = await (await raw.execute(_formatted(_TOTALS, narrowed), parameters)).fetchall()
    customers = _formatted(_CUSTOMERS, Narrowed(narrowed.customer_ids))
    counted = await (await raw.execute(customers, parameters)).fetchone()
    assert counted is not None, "a count is one row"
    return Totals(
        alerts=[AlertTotal(*row[:5]) for row in rows[:MAX_ALERTS_COUNTED]],
        customer_count=counted[0],
        truncated=len(rows) > MAX_ALERTS_COUNTED or any(row[5] for row in rows),
    )


_COMPLETE = """
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


_INCOMPLETE = """
SELECT o.organization_id FROM organization o
WHERE EXISTS (
    SELECT FROM alert_state s
    WHERE s.organization_id = o.organization_id AND s.period_end = 'infinity' AND s.reached <> '{}'::jsonb
)
ORDER BY o.organization_id
"""


async def organizations_to_complete(connection: Connection) -> list[int]:
    """The organizations with states for `complete`: one probe of an index for each organization."""
    raw = await driver(connection)
    return [row[0] for row in await (await raw.execute(_INCOMPLETE)).fetchall()]


async def complete(connection: Connection, organization_id: int, limit: int) -> int:
    """Gives states the end of their period that an older version wrote without it; returns how many it gave one.

    Waits for no row: an evaluation that holds one writes the time itself.
    """
    raw = await driver(connection)
    cursor = await raw.execute(_COMPLETE, {"organization_id": organization_id, "limit": limit})
    return cursor.rowcount
