"""The stored gauges of one customer, and the stored states of alerts on them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import orjson
from psycopg import AsyncCursor
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.gauges import Gauge, Group, Measure
from evaluator.periods import Period
from evaluator.transitions import AlertState
from runtime.turns import Slices
from store.alerts.state_json import state_from_json
from store.postgres.database import Row, driver

DECODED_AT_ONCE = 100  # rows that the driver decodes without a pause
SIGN_OF_LIFE = 1.0  # seconds between two statements while rows are decoded, about
IDS_AT_ONCE = 500  # ids in one statement, which the driver writes without a pause


class StoredGauge(NamedTuple):
    """A gauge with its value."""

    gauge_id: UUID
    gauge: Gauge
    value: Decimal


class ShownState(NamedTuple):
    """The state of an alert on a gauge; sequence: of its last notification; the others: of its last transition."""

    state: AlertState
    sequence: int
    change_time: datetime | None
    change_reason: str | None


NO_STATE = ShownState(AlertState(), 0, None, None)  # no threshold has been reached yet


_COUNT = """
SELECT measure, count(*) FROM gauge
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND measure = ANY(%(measures)s)
    AND period_start <= %(now)s AND period_end > %(now)s
GROUP BY measure
"""
_CURRENT = """
SELECT gauge_id, value, group_values, measure, subscription_id, period_start, period_end FROM gauge
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND measure = ANY(%(measures)s)
    AND period_start <= %(now)s AND period_end > %(now)s
ORDER BY subscription_id, group_values
"""
_CURRENT_OF_GROUP = _CURRENT.replace("ORDER BY", "    AND group_values @> %(group)s::jsonb\nORDER BY")
_STATES = """
SELECT gauge_id, alert_id, alert_version, reached, sequence, change_time, change_reason FROM alert_state
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s
    AND gauge_id = ANY(string_to_array(%(gauge_ids)s, E'\t')::uuid[]) AND alert_id = ANY(%(alert_ids)s)
"""


async def count(
    connection: AsyncConnection, organization_id: int, customer_id: str, measures: Collection[Measure], now: datetime
) -> dict[str, int]:
    """How many gauges `current` would read of each measure, by its key; measures without gauges are left out."""
    raw = await driver(connection)
    cursor = await raw.execute(_COUNT, _of_measures(organization_id, customer_id, measures, now))
    return dict(await cursor.fetchall())


async def current(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    measures: Collection[Measure],
    now: datetime,
    group: Group = (),
) -> dict[tuple[Measure, str | None, Period], list[StoredGauge]]:
    """The customer's gauges of those measures in current periods, by measure, subscription and period.

    group: only gauges that contain these keys and values. A few others may be among them, because the database
    compares without the order of key and value.
    """
    raw = await driver(connection)
    parameters = _of_measures(organization_id, customer_id, measures, now)
    statement = _CURRENT
    if group:
        statement = _CURRENT_OF_GROUP
        parameters["group"] = orjson.dumps(group).decode()
    cursor = await raw.execute(statement, parameters)
    found: dict[tuple[str, str | None, datetime, datetime], list[StoredGauge]] = {}
    async for gauge_id, value, group_values, measure, subscription_id, start, end in decoded(cursor, organization_id):
        alike = found.setdefault((measure, subscription_id, start, end), [])
        group = tuple((pair[0], pair[1]) for pair in group_values)
        # Thousands of groups share one measure and one period.
        if alike:
            like = alike[0].gauge
            each = Gauge(customer_id, subscription_id, like.measure, group, like.period)
        else:
            read = Measure.from_key(measure, subscription_id is not None)
            each = Gauge(customer_id, subscription_id, read, group, Period(start, end))
        alike.append(StoredGauge(gauge_id, each, value))
    return {
        (first.measure, first.subscription_id, first.period): gauges
        for gauges in found.values()
        for first in (gauges[0].gauge,)
    }


async def states(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    watched: Mapping[str, Sequence[StoredGauge]],
    reset_versions: Mapping[str, int],
) -> dict[tuple[UUID, str], ShownState]:
    """The stored states of alerts on their gauges (`watched`, by alert id), by gauge id and alert id.

    reset_versions: by alert id; states that an earlier version of the alert wrote count as empty.
    """
    raw, slices = await driver(connection), Slices(organization_id)
    gauge_ids: list[UUID] = list({item.gauge_id for gauges in watched.values() for item in gauges})
    found: dict[tuple[UUID, str], ShownState] = {}
    for start in range(0, len(gauge_ids), IDS_AT_ONCE):
        await slices.begin()
        cursor = await raw.execute(
            _STATES,
            {
                "organization_id": organization_id,
                "customer_id": customer_id,
                "gauge_ids": "\t".join([one.hex for one in gauge_ids[start : start + IDS_AT_ONCE]]),
                "alert_ids": list(watched),
            },
        )
        async for gauge_id, alert_id, version, reached, *rest in decoded(cursor, organization_id):
            state = AlertState() if version < reset_versions[alert_id] else state_from_json(reached)
            found[gauge_id, alert_id] = ShownState(state, *rest)
    return found


def _of_measures(
    organization_id: int, customer_id: str, measures: Collection[Measure], now: datetime
) -> dict[str, object]:
    return {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "measures": sorted({measure.key for measure in measures}),
        "now": now,
    }


async def decoded(
    cursor: "AsyncCursor[Row]", organization_id: int, *, sign_of_life: float = SIGN_OF_LIFE
) -> AsyncIterator[Row]:
    """The rows of a result, decoded in slices: a customer may have very many groups, and a list many alarms.

    sign_of_life: seconds between two statements while rows are decoded, about.
    """
    slices, time = Slices(organization_id), asyncio.get_running_loop().time
    last_statement = time()
    while rows := await cursor.fetchmany(DECODED_AT_ONCE):
        # On a very busy machine the slices of 10,000 rows take seconds, and PostgreSQL ends a transaction that sends
        # nothing for too long.
        if time() > last_statement + sign_of_life:
            await cursor.connection.execute("SELECT 1")
            last_statement = time()
        await slices.begin()
        for row in rows:
            yield row
            await slices.pause()
