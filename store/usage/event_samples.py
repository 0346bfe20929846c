"""Samples of the stored events of one customer: what an alert counts of them, and why it does not count the others.

A sample reads a bounded number of events, whatever the customer has.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from evaluator.gauges import Measure
from evaluator.periods import Period
from store.postgres.database import DriverConnection
from store.tables import event_key
from store.usage.recounts import StatementKind, conditions, parameters_of, unit_condition

MAX_EXAMINED = 1_000  # events of one sample
MAX_OTHER_UNITS = 10


@dataclass(frozen=True)
class EventSample:
    """What the events of a sample say about an alert; the counts are of the sample.

    examined: how many were read. counted: those that the alert counts, in any of its groups. last_…: the latest of
    these, and the arrival of the last one. late: those of them that came after the period. ungrouped: those
    of them that lack a property of the groups. other_unit: those with another metric or currency, or without cost.
    filtered: those of the unit that do not count. voided: events of the period that were taken back, of the first
    MAX_EXAMINED.
    """

    period: Period
    examined: int
    counted: int
    last_event_id: str | None
    last_event_time: datetime | None
    last_ingest_time: datetime | None
    late: int
    ungrouped: int
    other_unit: int
    filtered: int
    other_units: tuple[str, ...]
    voided: int

    @property
    def is_complete(self) -> bool:
        """Whether these are all events of the customer in the period."""
        return self.examined < MAX_EXAMINED


_SAMPLE = """
SELECT count(*), count(*) FILTER (WHERE counts),
    (array_agg(event_id ORDER BY event_time DESC, event_id COLLATE "C" DESC) FILTER (WHERE counts))[1],
    max(event_time) FILTER (WHERE counts), max(ingest_time) FILTER (WHERE counts),
    count(*) FILTER (WHERE counts AND ingest_time >= period_end), count(*) FILTER (WHERE counts AND NOT has_groups),
    count(*) FILTER (WHERE NOT has_unit), count(*) FILTER (WHERE has_unit AND NOT counts),
    (array_agg(DISTINCT other) FILTER (WHERE NOT has_unit AND other IS NOT NULL))[1:%(other_units)s::integer],
    (SELECT count(*) FROM (
        SELECT event_time FROM voided_event
        WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s LIMIT %(limit)s
    ) AS v WHERE event_time >= %(start)s AND event_time < %(end)s)
FROM (
    SELECT e.event_id, e.event_time, e.ingest_time, i.period_end, {other} AS other,
        coalesce({counts}, false) AND (NOT g.has_groups OR g.has_values) AS counts,
        coalesce({has_unit}, false) AS has_unit, g.has_groups
    FROM (VALUES (
        %(customer_id)s::text, %(subscription_id)s::text, %(name)s::text, %(start)s::timestamptz, %(end)s::timestamptz
    )) AS i (customer_id, subscription_id, name, period_start, period_end),
    LATERAL (
        SELECT * FROM event e
        WHERE {of_customer} AND e.event_time >= %(start)s AND e.event_time < %(end)s
        LIMIT %(limit)s
    ) AS e,
    LATERAL (SELECT
        coalesce(e.properties ?& %(group_keys)s::text[], %(group_keys)s::text[] = '{{}}') AS has_groups,
        coalesce(e.properties @> %(group_values)s::jsonb, %(group_values)s::jsonb = '{{}}') AS has_values
    ) AS g
) AS examined
"""


async def sample(
    connection: DriverConnection,
    organization_id: int,
    customer_id: str,
    kind: StatementKind,
    measure: Measure,
    period: Period,
    *,
    subscription_id: str | None,
    group_keys: tuple[str, ...],
    group_values: Mapping[str, str],
) -> EventSample:
    """A sample of the events of a customer in a period. The transaction is a snapshot that reads by index.

    kind: what the alert counts, without its group keys; of a subscription if `subscription_id` is set.
    group_values: of the group keys that have one value only; an event with another value does not count.
    """
    statement = _SAMPLE.format(
        other="e.currency" if kind.of_cost else "coalesce(e.metric_id, e.event_name)",
        counts=conditions(kind),
        has_unit=unit_condition(kind),
        of_customer=event_key.of_customer("%(organization_id)s", "%(customer_id)s::text"),
    )
    cursor = await connection.execute(
        statement.encode(),
        {
            "organization_id": organization_id,
            "customer_id": customer_id,
            "subscription_id": subscription_id,
            "name": measure.currency or measure.metric_id or "",
            "start": period.start,
            "end": period.end,
            "group_keys": list(group_keys),
            "group_values": json.dumps(dict(group_values)),
            "limit": MAX_EXAMINED,
            "other_units": MAX_OTHER_UNITS,
            **parameters_of(kind),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    examined, counted, last_id, last_time, last_ingest, late, ungrouped, other_unit, filtered, units, voided = row
    return EventSample(
        period=period,
        examined=examined,
        counted=counted,
        last_event_id=last_id,
        last_event_time=last_time,
        last_ingest_time=last_ingest,
        late=late,
        ungrouped=ungrouped,
        other_unit=other_unit,
        filtered=filtered,
        other_units=tuple(units or ()),
        voided=voided,
    )
