"""States in alarm of current periods, the latest change first: they are alarms unless their alert says otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster
from store.views.customer_gauges import SIGN_OF_LIFE, decoded

# The change_time of a state without one: its thresholds were reached silently from the start.
NEVER = datetime.min.replace(tzinfo=UTC)


class Position(NamedTuple):
    """The position of an alarm in the list: by its last change, the latest first, then by its key, descending."""

    change_time: datetime
    customer_id: str
    gauge_id: UUID
    alert_id: str


@dataclass(frozen=True)
class AlarmFilter:
    """Which alarms: those of these customers and of these alerts; an empty field means all."""

    customer_ids: Sequence[str] = ()
    alert_ids: Sequence[str] = ()


# Reads all states in alarm of the current periods from the index; the sort keeps only the first rows.
_CANDIDATES = """
SELECT coalesce(s.change_time, %(never)s) AS change_time, s.customer_id, s.gauge_id, s.alert_id
FROM alert_state s
WHERE s.organization_id = %(organization_id)s AND s.period_end > %(now)s AND s.reached <> '{}'::jsonb
    AND {filter} AND {after}
ORDER BY 1 DESC, 2 DESC, 3 DESC, 4 DESC
LIMIT %(limit)s
"""

# The ends of current periods, found by steps through the index from one end to the next. As text: the driver reads no
# infinite times.
_PERIOD_ENDS = """
WITH RECURSIVE step AS (
    SELECT min(period_end) AS period_end FROM alert_state
    WHERE organization_id = %(organization_id)s AND period_end > %(now)s AND reached <> '{}'::jsonb
    UNION ALL
    SELECT (
        SELECT min(s.period_end) FROM alert_state s
        WHERE s.organization_id = %(organization_id)s AND s.period_end > step.period_end AND s.reached <> '{}'::jsonb
    )
    FROM step WHERE step.period_end IS NOT NULL
)
SELECT period_end::text FROM step WHERE period_end IS NOT NULL LIMIT %(most)s
"""

# The latest states of each period, which the index has in order, and of these the latest.
_CANDIDATES_OF_PERIODS = """
SELECT coalesce(found.change_time, %(never)s), found.customer_id, found.gauge_id, found.alert_id
FROM unnest(%(period_ends)s::timestamptz[]) AS period (period_end)
CROSS JOIN LATERAL (
    (SELECT s.change_time, s.customer_id, s.gauge_id, s.alert_id FROM alert_state s
    WHERE s.organization_id = %(organization_id)s AND s.period_end = period.period_end AND s.reached <> '{}'::jsonb
        AND s.change_time IS NOT NULL AND {filter} AND {after_with_time}
    ORDER BY s.change_time DESC, s.customer_id DESC, s.gauge_id DESC, s.alert_id DESC
    LIMIT %(limit)s)
    UNION ALL
    (SELECT s.change_time, s.customer_id, s.gauge_id, s.alert_id FROM alert_state s
    WHERE s.organization_id = %(organization_id)s AND s.period_end = period.period_end AND s.reached <> '{}'::jsonb
        AND s.change_time IS NULL AND {filter} AND {after}
    ORDER BY s.customer_id DESC, s.gauge_id DESC, s.alert_id DESC
    LIMIT %(limit)s)
) AS found
ORDER BY 1 DESC, 2 DESC, 3 DESC, 4 DESC
LIMIT %(limit)s
"""

MAX_PERIOD_ENDS = 50  # that are read one by one; customers with anchors of their own have many more


async def read(
    connection: DriverConnection,
    organization_id: int,
    alarm_filter: AlarmFilter,
    now: datetime,
    after: Position | None,
    limit: int,
    *,
    max_period_ends: int = MAX_PERIOD_ENDS,
    sign_of_life: float = SIGN_OF_LIFE,
) -> list[Position]:
    """The positions of the next states that may be alarms, in order.

    max_period_ends: that are read one by one; with more of them all states are sorted together.
    sign_of_life: see `decoded`.
    """
    parameters = {**parameters_of(organization_id, alarm_filter, now), "never": NEVER, "limit": limit}
    template, after_with_time = _CANDIDATES, "true"
    # On a cluster, steps through an index would go through all of its shards.
    if not alarm_filter.customer_ids and not on_cluster(connection):
        parameters["most"] = max_period_ends + 1
        found = await (await connection.execute(_PERIOD_ENDS, parameters)).fetchall()
        if len(found) <= max_period_ends:
            template = _CANDIDATES_OF_PERIODS
            parameters["period_ends"] = [period_end for (period_end,) in found]
    if after is not None:
        parameters |= {f"after_{name}": part for name, part in after._asdict().items()}
        after_with_time = _AFTER.replace("coalesce(s.change_time, %(never)s)", "s.change_time")
    statement = formatted(template, alarm_filter, _AFTER if after is not None else "true")
    cursor = await connection.execute(statement.replace("{after_with_time}", after_with_time).encode(), parameters)
    return [Position(*row) async for row in decoded(cursor, organization_id, sign_of_life=sign_of_life)]


_AFTER = """
(coalesce(s.change_time, %(never)s), s.customer_id, s.gauge_id, s.alert_id)
    < (%(after_change_time)s, %(after_customer_id)s COLLATE "C", %(after_gauge_id)s, %(after_alert_id)s COLLATE "C")
"""


def formatted(statement: str, alarm_filter: AlarmFilter, after: str = "true") -> str:
    """A statement about `s` with the conditions of the filter, and a position after which it begins."""
    conditions = ["true"]
    if alarm_filter.customer_ids:
        conditions.append("s.customer_id = ANY(%(only_customer_ids)s::text[])")
    if alarm_filter.alert_ids:
        conditions.append("s.alert_id = ANY(%(only_alert_ids)s::text[])")
    return statement.replace("{filter}", " AND ".join(conditions)).replace("{after}", after)


def parameters_of(organization_id: int, alarm_filter: AlarmFilter, now: datetime) -> dict[str, Any]:
    """The parameters of these conditions."""
    return {
        "organization_id": organization_id,
        "now": now,
        "only_customer_ids": list(alarm_filter.customer_ids),
        "only_alert_ids": list(alarm_filter.alert_ids),
    }
