"""The course of a gauge's value in a period, counted from the stored events of one customer.

A course reads a bounded number of events. Of a customer with more, it reads a share that the hashes of the ids of the
events choose: a sample, which is the same in each read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from evaluator.aggregation import Aggregation
from store.postgres.database import DriverConnection
from store.tables import event_key
from store.usage import metric_conditions
from store.usage.recounts import Recount, StatementKind, conditions, parameters_of

MAX_EVENTS = 100_000  # that are read for an exact course
_PROBED_PARTS = 16  # of event_key.PARTS_OF_SAMPLE, to estimate how many events there are


@dataclass(frozen=True)
class Course:
    """What the events of each interval say; None: none counted. examined: how many events were read.

    share: how much of all events that is; below 1, the amounts are those of a sample.
    """

    amounts: Sequence[Decimal | None]
    examined: int
    share: Fraction

    @property
    def is_exact(self) -> bool:
        """Whether every event was read."""
        return self.share == 1


_AGGREGATES = {
    Aggregation.SUM: "sum({amount}) FILTER (WHERE counts)",
    Aggregation.COUNT: (
        "nullif("
        "count(*) FILTER (WHERE counts AND {amount} >= 0) - count(*) FILTER (WHERE counts AND {amount} < 0), 0)"
    ),
    Aggregation.MAX: "max({amount}) FILTER (WHERE counts)",
    Aggregation.LATEST: (
        '(array_agg({amount} ORDER BY event_time DESC, event_id COLLATE "C" DESC) FILTER (WHERE counts))[1]'
    ),
}

_READ = """
SELECT e.event_id, e.event_time, {amount} AS amount, {unique} AS unique_value,
    least(floor(extract(epoch FROM e.event_time - i.period_start) / %(width)s)::integer, %(last)s) AS interval,
    coalesce({counts} AND (e.properties @> %(group)s::jsonb OR %(group)s::jsonb = '{{}}'), false) AS counts
FROM (VALUES (
    %(customer_id)s::text, %(subscription_id)s::text, %(name)s::text, %(start)s::timestamptz, %(end)s::timestamptz
)) AS i (customer_id, subscription_id, name, period_start, period_end),
LATERAL (
    SELECT * FROM event e
    WHERE {of_customer} AND e.event_time >= %(start)s AND e.event_time < %(end)s{sample}
    LIMIT %(limit)s
) AS e
"""

_BY_INTERVAL = "SELECT interval, {aggregate}, count(*) FROM ({read}) AS examined GROUP BY interval"

# A value counts in the interval in which it came first.
_UNIQUE = """
SELECT interval, count(*) FILTER (WHERE counts), sum(examined)::bigint FROM (
    SELECT min(interval) AS interval, counts, count(*) AS examined FROM ({read}) AS examined
    GROUP BY counts, CASE WHEN counts THEN unique_value END
) AS by_value
GROUP BY interval
"""

_COUNT = """
SELECT count(*) FROM (
    SELECT 1 FROM event e
    WHERE {of_customer} AND e.event_time >= %(start)s AND e.event_time < %(end)s{sample}
    LIMIT %(limit)s
) AS probed
"""


async def course(
    connection: DriverConnection, organization_id: int, counted: Recount, width: timedelta, intervals: int
) -> Course:
    """The course of the gauge in its period, in so many intervals of `width` from its start.

    What comes after the last interval counts in it. The transaction is a snapshot that reads by index.
    """
    kind, gauge = counted.kind, counted.gauge
    parameters = {
        "organization_id": organization_id,
        "customer_id": gauge.customer_id,
        "subscription_id": gauge.subscription_id,
        "name": gauge.measure.currency or gauge.measure.metric_id or "",
        "start": gauge.period.start,
        "end": gauge.period.end,
        "group": json.dumps(dict(gauge.group)),
        "width": width.total_seconds(),
        "last": intervals - 1,
        "limit": MAX_EVENTS + 1,
        **parameters_of(kind),
    }
    amounts, examined = await _read(connection, kind, parameters, intervals, "")
    if examined <= MAX_EVENTS:
        return Course(amounts, examined, Fraction(1))
    sample = f" AND {event_key.in_sample('%(organization_id)s', '%(parts)s::integer')}"
    probed = {**parameters, "parts": _PROBED_PARTS, "limit": MAX_EVENTS}
    cursor = await connection.execute(_COUNT.format(of_customer=_OF_CUSTOMER, sample=sample).encode(), probed)
    row = await cursor.fetchone()
    assert row is not None, "a count is one row"
    parts = min(max(_PROBED_PARTS * MAX_EVENTS // max(row[0], 1), 1), event_key.PARTS_OF_SAMPLE // 2)
    sampled = {**parameters, "parts": parts, "limit": 2 * MAX_EVENTS}
    amounts, examined = await _read(connection, kind, sampled, intervals, sample)
    return Course(amounts, examined, Fraction(parts, event_key.PARTS_OF_SAMPLE))


_OF_CUSTOMER = event_key.of_customer("%(organization_id)s", "%(customer_id)s::text")


async def _read(
    connection: DriverConnection, kind: StatementKind, parameters: dict[str, object], intervals: int, sample: str
) -> tuple[list[Decimal | None], int]:
    is_unique = kind.aggregation is Aggregation.UNIQUE_COUNT
    read = _READ.format(
        amount="e.cost" if kind.of_cost else metric_conditions.amount(kind.raw_events),
        unique="e.properties ->> %(property)s::text" if is_unique else "NULL::text",
        counts=f"({conditions(kind)})",
        of_customer=_OF_CUSTOMER,
        sample=sample,
    )
    if is_unique:
        statement = _UNIQUE.format(read=read)
    else:
        aggregate = _AGGREGATES[kind.aggregation].format(amount="amount")
        statement = _BY_INTERVAL.format(aggregate=aggregate, read=read)
    cursor = await connection.execute(statement.encode(), parameters)
    amounts: list[Decimal | None] = [None] * intervals
    examined = 0
    for interval, amount, number in await cursor.fetchall():
        examined += number
        if amount is not None and interval is not None:
            amounts[interval] = Decimal(amount)
    return amounts, examined
