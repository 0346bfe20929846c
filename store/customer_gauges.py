"""What is stored of one customer's gauges, and what alerts remember of them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.gauges import Gauge, Measure
from evaluator.periods import Period
from evaluator.transitions import AlertState
from store.evaluations import state_from_json
from store.tables.alerts import alert_state
from store.tables.base import Identifier
from store.tables.usage import gauge


class Measured(NamedTuple):
    """A gauge with its value."""

    gauge_id: UUID
    gauge: Gauge
    value: Decimal


class Remembered(NamedTuple):
    """What an alert remembers of a gauge; change_time, change_reason: of the last transition."""

    state: AlertState
    sequence: int
    change_time: datetime | None
    change_reason: str | None


UNTOUCHED = Remembered(AlertState(), 0, None, None)  # the gauge has not come to any line yet


async def current(
    connection: AsyncConnection, organization_id: int, customer_id: str, measures: Collection[Measure], now: datetime
) -> dict[tuple[Measure, str | None, Period], list[Measured]]:
    """The customer's gauges of those measures whose period has begun and not ended, by measure and place."""
    rows = await connection.execute(
        select(
            gauge.c.gauge_id,
            gauge.c.value,
            gauge.c.subscription_id,
            gauge.c.measure,
            gauge.c.group_values,
            gauge.c.period_start,
            gauge.c.period_end,
        )
        .where(
            gauge.c.organization_id == organization_id,
            gauge.c.customer_id == customer_id,
            gauge.c.measure.in_({measure.key for measure in measures}),
            gauge.c.period_start <= now,
            gauge.c.period_end > now,
        )
        .order_by(gauge.c.subscription_id, gauge.c.group_values)
    )
    found: dict[tuple[Measure, str | None, Period], list[Measured]] = {}
    for row in rows:
        each = Gauge(
            customer_id=customer_id,
            subscription_id=row.subscription_id,
            measure=Measure.from_key(row.measure, row.subscription_id is not None),
            group=tuple((key, value) for key, value in row.group_values),
            period=Period(row.period_start, row.period_end),
        )
        place = (each.measure, each.subscription_id, each.period)
        found.setdefault(place, []).append(Measured(row.gauge_id, each, row.value))
    return found


async def remembered(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    watched: Mapping[str, Sequence[Measured]],
    reset_versions: Mapping[str, int],
) -> dict[tuple[UUID, str], Remembered]:
    """What alerts (`watched`, by id) remember of their gauges, by gauge id and alert id.

    reset_versions: of each alert; what it remembers from before that version counts no more.
    """
    gauge_ids = {item.gauge_id for gauges in watched.values() for item in gauges}
    rows = await connection.execute(
        select(
            alert_state.c.gauge_id,
            alert_state.c.alert_id,
            alert_state.c.alert_version,
            alert_state.c.reached,
            alert_state.c.sequence,
            alert_state.c.change_time,
            alert_state.c.change_reason,
        ).where(
            alert_state.c.organization_id == organization_id,
            alert_state.c.customer_id == customer_id,
            # An array: a list of parameters ends at 65,535 of them.
            alert_state.c.gauge_id == any_(cast(list(gauge_ids), ARRAY(Uuid))),
            alert_state.c.alert_id == any_(cast(list(watched), ARRAY(Identifier))),
        )
    )
    return {
        (row.gauge_id, row.alert_id): Remembered(
            AlertState() if row.alert_version < reset_versions[row.alert_id] else state_from_json(row.reached),
            row.sequence,
            row.change_time,
            row.change_reason,
        )
        for row in rows
    }
