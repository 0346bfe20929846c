"""Backfills of the alerts on a new metric: they begin in parts, because there may be very many of these alerts.

A metric stores how far its parts are (`metric.backfill_after`), so that any process goes on with them.
"""

from dataclasses import dataclass

from evaluator.alerts import ConditionType
from store.alerts.backfills import FROM_THE_BEGINNING
from store.postgres.database import DriverConnection

_ON_USAGE = (ConditionType.USAGE_THRESHOLD_REACHED, ConditionType.USAGE_EXCEEDED)


@dataclass(frozen=True)
class PartSize:
    """How many alerts one part reads at most, and of how many of them it begins the backfill."""

    examined: int
    begun: int


# No index knows the metrics of alerts, so the alerts are read in the order of their key. None is read behind the last
# one whose backfill begins.
_BEGIN_PART = """
WITH part AS MATERIALIZED (
    SELECT alert_id
    FROM (
        SELECT alert_id, state = 'ACTIVE' AND condition_type = ANY(%(condition_types)s)
            AND condition ->> 'metric_id' = %(metric_id)s AS concerned
        FROM alert WHERE organization_id = %(organization_id)s AND alert_id > %(after)s COLLATE "C"
        ORDER BY alert_id LIMIT %(examined)s
    ) AS examined
    WHERE concerned ORDER BY alert_id LIMIT %(begun)s
), begun AS (
    UPDATE alert a SET visit_after = %(beginning)s FROM part
    WHERE a.organization_id = %(organization_id)s AND a.alert_id = part.alert_id
)
SELECT CASE WHEN (SELECT count(*) FROM part) = %(begun)s THEN (SELECT max(alert_id) FROM part) ELSE (
    SELECT alert_id
    FROM alert WHERE organization_id = %(organization_id)s AND alert_id > %(after)s COLLATE "C"
    ORDER BY alert_id OFFSET %(examined)s - 1 LIMIT 1
) END
"""


async def begin_part(
    connection: DriverConnection, organization_id: int, metric_id: str, after: str, size: PartSize
) -> str | None:
    """Begins backfills of active alerts on usage of the metric, those after the id `after`.

    Returns the last alert id of this part; None: there are no more. The transaction holds the organization's lock.
    """
    parameters = {
        "organization_id": organization_id,
        "metric_id": metric_id,
        "after": after,
        "condition_types": list(_ON_USAGE),
        "examined": size.examined,
        "begun": size.begun,
        "beginning": FROM_THE_BEGINNING,
    }
    row = await (await connection.execute(_BEGIN_PART.encode(), parameters)).fetchone()
    assert row is not None, "a value is one row"
    last: str | None = row[0]
    return last


async def keep(connection: DriverConnection, organization_id: int, metric_id: str, after: str | None) -> None:
    """Stores how far the parts of a metric are; None: they are complete."""
    await connection.execute(
        "UPDATE metric SET backfill_after = %s WHERE organization_id = %s AND metric_id = %s",
        (after, organization_id, metric_id),
    )


_WAITING = """
SELECT organization_id, metric_id FROM metric WHERE backfill_after IS NOT NULL
ORDER BY organization_id, metric_id LIMIT %s
"""


async def waiting(connection: DriverConnection, limit: int) -> list[tuple[int, str]]:
    """Metrics whose parts are not complete: organization and id."""
    return await (await connection.execute(_WAITING, (limit,))).fetchall()


_CLAIM = """
SELECT backfill_after FROM metric
WHERE organization_id = %s AND metric_id = %s AND backfill_after IS NOT NULL FOR UPDATE SKIP LOCKED
"""


async def claim(connection: DriverConnection, organization_id: int, metric_id: str) -> str | None:
    """Claims a metric until the transaction ends; returns how far its parts are.

    None: they are complete, or another process works on them. The organization's lock has to be held before.
    """
    row = await (await connection.execute(_CLAIM, (organization_id, metric_id))).fetchone()
    return None if row is None else str(row[0])
