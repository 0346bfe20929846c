"""The states of alerts on gauges: which thresholds are reached, and the number of the last notification."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from evaluator.change_reasons import ChangeReason
from evaluator.gauges import Gauge
from evaluator.transitions import AlertState
from runtime.turns import Slices
from store.alerts.state_json import state_from_json, state_json
from store.postgres.database import DriverConnection
from store.postgres.distributed import Forms
from store.postgres.json_rows import json_rows

STATES_AT_ONCE = 500  # states that one statement writes
DECODED_AT_ONCE = 50  # rows that the driver decodes without a pause


@dataclass(frozen=True, slots=True)
class StoredState:
    """The state of one alert on one gauge.

    alert_version: the version of the alert under which the gauge was evaluated. sequence: the number of the last
    notification, 0 before the first.
    """

    gauge: Gauge
    alert_id: str
    alert_version: int
    state: AlertState
    sequence: int
    change_time: datetime | None
    change_reason: ChangeReason | None


# Reads all states on some gauges.
_READ_STATES = """
SELECT s.gauge_id, s.alert_id, s.alert_version, s.reached, s.sequence, s.change_time, s.change_reason
FROM alert_state s
JOIN unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id) ON s.customer_id = i.customer_id COLLATE "C" AND s.gauge_id = i.gauge_id
WHERE s.organization_id = %(organization_id)s {shards}
"""
_OF_CUSTOMERS = r"s.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))"
_READ_ALL_STATES = Forms.naming_shards(_READ_STATES, _OF_CUSTOMERS)
_READ_STATES_OF_ALERT = Forms.naming_shards(_READ_STATES + "    AND s.alert_id = %(alert_id)s\n", _OF_CUSTOMERS)


async def read_states(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge], alert_id: str | None = None
) -> dict[tuple[UUID, str], StoredState]:
    """The states on those gauges, by gauge id and alert id; with `alert_id`, only those of that alert.

    A transaction that evaluates must hold the locks of the gauges.
    """
    by_id = {gauge.gauge_id: gauge for gauge in gauges}
    slices = Slices(organization_id)
    cursor = await connection.execute(
        (_READ_ALL_STATES if alert_id is None else _READ_STATES_OF_ALERT).on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_id.hex for gauge in gauges]),
            "alert_id": alert_id,
        },
    )
    found: dict[tuple[UUID, str], StoredState] = {}
    slices.begin_at_once()
    while rows := await cursor.fetchmany(DECODED_AT_ONCE):
        for gauge_id, alert_id, version, reached, sequence, time, reason in rows:
            state = state_from_json(reached)
            found[gauge_id, alert_id] = StoredState(
                by_id[gauge_id], alert_id, version, state, sequence, time, ChangeReason(reason) if reason else None
            )
            await slices.pause()
    return found


# Creates or replaces states.
_WRITE_STATES = """
INSERT INTO alert_state AS s (
    organization_id, customer_id, gauge_id, alert_id, alert_version, reached, sequence, change_time, change_reason,
    period_end
)
SELECT %(organization_id)s, i.customer_id, i.gauge_id, i.alert_id, i.alert_version, i.reached, i.sequence,
       i.change_time, i.change_reason, i.period_end
FROM json_to_recordset(%(states)s::json) AS i (
    customer_id text, gauge_id uuid, alert_id text, alert_version bigint, reached jsonb, sequence bigint,
    change_time timestamptz, change_reason text, period_end timestamptz
)
ON CONFLICT (organization_id, customer_id, gauge_id, alert_id) DO UPDATE SET
    alert_version = excluded.alert_version, reached = excluded.reached, sequence = excluded.sequence,
    change_time = excluded.change_time, change_reason = excluded.change_reason, period_end = excluded.period_end
"""


async def write_states(connection: DriverConnection, organization_id: int, states: Sequence[StoredState]) -> None:
    """Stores states. The transaction must hold the locks of their gauges."""
    for start in range(0, len(states), STATES_AT_ONCE):
        part = states[start : start + STATES_AT_ONCE]
        rows = await json_rows(map(_row, part), organization_id)
        await connection.execute(_WRITE_STATES, {"organization_id": organization_id, "states": rows})


def _row(item: StoredState) -> dict[str, Any]:
    return {
        "customer_id": item.gauge.customer_id,
        "gauge_id": item.gauge.gauge_id,
        "alert_id": item.alert_id,
        "alert_version": item.alert_version,
        "reached": state_json(item.state),
        "sequence": item.sequence,
        "change_time": item.change_time,
        "change_reason": item.change_reason,
        "period_end": item.gauge.period.end,
    }
