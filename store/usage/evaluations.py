"""What an evaluation reads and writes beside the gauges: alert states, notifications, the outbox and the feed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

import orjson
import psycopg

from evaluator.amounts import format_decimal
from evaluator.gauges import Gauge
from evaluator.transitions import AlertState, Reached
from runtime.turns import Slices
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import DriverConnection

# Rows of one statement, or of one fetch. The driver reads and writes them value by value, which blocks the event
# loop. A column with many quotes is sent as one JSON text: in an array each quote would be escaped by itself.
AT_ONCE = 200


class ChangeReason(StrEnum):
    """Why a state changed last."""

    USAGE = "USAGE"  # an event moved the gauge
    FACT = "FACT"  # the billing system posted a fact, or time reached a date in one
    DEFINITION = "DEFINITION"  # the alert, or the facts that decide what it covers, changed


@dataclass(frozen=True, slots=True)
class StoredState:
    """The state of one alert on one gauge.

    sequence: of its last notification, 0 before the first. alert_version: that it was evaluated under.
    """

    gauge: Gauge
    alert_id: str
    alert_version: int
    state: AlertState
    sequence: int
    change_time: datetime | None
    change_reason: ChangeReason | None


_READ = """
SELECT s.gauge_id, s.alert_id, s.alert_version, s.reached, s.sequence, s.change_time, s.change_reason
FROM alert_state s
JOIN unnest(%(customer_ids)s::text[], %(gauge_ids)s::uuid[]) AS i (customer_id, gauge_id)
    ON s.customer_id = i.customer_id COLLATE "C" AND s.gauge_id = i.gauge_id
WHERE s.organization_id = %(organization_id)s
"""


async def states(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge]
) -> dict[tuple[UUID, str], StoredState]:
    """The states on those gauges (locked by this transaction), by gauge id and alert id."""
    by_id = {gauge.gauge_id: gauge for gauge in gauges}
    slices = Slices(organization_id)
    cursor = await connection.execute(
        _READ,
        {
            "organization_id": organization_id,
            "customer_ids": [gauge.customer_id for gauge in gauges],
            "gauge_ids": [gauge.gauge_id for gauge in gauges],
        },
    )
    found: dict[tuple[UUID, str], StoredState] = {}
    while rows := await cursor.fetchmany(AT_ONCE):
        await slices.begin()
        for gauge_id, alert_id, version, reached, sequence, time, reason in rows:
            state = state_from_json(reached)
            found[gauge_id, alert_id] = StoredState(
                by_id[gauge_id], alert_id, version, state, sequence, time, ChangeReason(reason) if reason else None
            )
    return found


_WRITE = """
INSERT INTO alert_state AS s (
    organization_id, customer_id, gauge_id, alert_id, alert_version, reached, sequence, change_time, change_reason,
    period_end
)
SELECT %(organization_id)s, i.customer_id, i.gauge_id, i.alert_id, i.version, i.reached, i.sequence, i.change_time,
       i.change_reason, i.period_end
FROM ROWS FROM (
    unnest(
        %(customer_ids)s::text[], %(gauge_ids)s::uuid[], %(alert_ids)s::text[], %(versions)s::bigint[],
        %(sequences)s::bigint[], %(change_times)s::timestamptz[], %(change_reasons)s::text[],
        %(period_ends)s::timestamptz[]
    ),
    jsonb_array_elements(%(reached)s::jsonb)
) AS i (
    customer_id, gauge_id, alert_id, version, sequence, change_time, change_reason, period_end, reached
)
ON CONFLICT (organization_id, customer_id, gauge_id, alert_id) DO UPDATE SET
    alert_version = excluded.alert_version, reached = excluded.reached, sequence = excluded.sequence,
    change_time = excluded.change_time, change_reason = excluded.change_reason, period_end = excluded.period_end
"""


async def write_states(connection: DriverConnection, organization_id: int, stored: Sequence[StoredState]) -> None:
    """Stores states on gauges that this transaction has locked."""
    slices = Slices(organization_id)
    for start in range(0, len(stored), AT_ONCE):
        await slices.begin()
        await _write_some_states(connection, organization_id, stored[start : start + AT_ONCE])


async def _write_some_states(
    connection: DriverConnection, organization_id: int, stored: Sequence[StoredState]
) -> None:
    await connection.execute(
        _WRITE,
        {
            "organization_id": organization_id,
            "customer_ids": [item.gauge.customer_id for item in stored],
            "gauge_ids": [item.gauge.gauge_id for item in stored],
            "alert_ids": [item.alert_id for item in stored],
            "versions": [item.alert_version for item in stored],
            "reached": orjson.dumps([state_json(item.state) for item in stored]).decode(),
            "sequences": [item.sequence for item in stored],
            "change_times": [item.change_time for item in stored],
            "change_reasons": [item.change_reason and item.change_reason.value for item in stored],
            "period_ends": [item.gauge.period.end for item in stored],
        },
    )


class Record(Protocol):
    """A notification as it is kept. gauge_id is unset, and sequence 0, where it is about no single gauge."""

    @property
    def customer_id(self) -> str: ...

    @property
    def notification_id(self) -> str: ...

    @property
    def alert_id(self) -> str: ...

    @property
    def gauge_id(self) -> UUID | None: ...

    @property
    def sequence(self) -> int: ...

    @property
    def event_type(self) -> str: ...

    @property
    def condition_type(self) -> str: ...

    def body(self) -> str:
        """The JSON that is sent, byte for byte."""


# A notification's id is a digest of alert, gauge and sequence: were two transactions ever to record the same one,
# the second would fail here, and no customer gets it twice.
_NOTIFY = """
WITH written AS (
    INSERT INTO notification (
        organization_id, customer_id, notification_id, alert_id, gauge_id, sequence, event_type, condition_type,
        create_time, body
    )
    SELECT %(organization_id)s, i.customer_id, i.notification_id, i.alert_id, i.gauge_id, i.sequence, i.event_type,
           i.condition_type, %(now)s, i.body
    FROM ROWS FROM (
        unnest(
            %(customer_ids)s::text[], %(notification_ids)s::text[], %(alert_ids)s::text[], %(gauge_ids)s::uuid[],
            %(sequences)s::bigint[], %(event_types)s::text[], %(condition_types)s::text[]
        ),
        json_array_elements_text(%(bodies)s::json)
    ) AS i (customer_id, notification_id, alert_id, gauge_id, sequence, event_type, condition_type, body)
    RETURNING customer_id, notification_id, event_type, condition_type
), pending AS (
    INSERT INTO feed_pending (organization_id, customer_id, notification_id)
    SELECT %(organization_id)s, customer_id, notification_id FROM written
)
INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type, create_time)
SELECT %(organization_id)s, customer_id, notification_id, event_type, condition_type, %(now)s FROM written
"""


async def write_notifications(
    connection: DriverConnection, organization_id: int, notifications: Sequence[Record], now: datetime
) -> None:
    """Stores notifications, and hands them to the outbox and the feed; wakes both once this transaction commits.

    Those of one gauge, which this transaction has locked, are given in the order of their sequence.
    """
    for start in range(0, len(notifications), AT_ONCE):
        await _write_some_notifications(connection, organization_id, notifications[start : start + AT_ONCE], now)
    await connection.execute("SELECT pg_notify(%s, %s)", (OUTBOX_CHANNEL, str(organization_id)))


async def _write_some_notifications(
    connection: DriverConnection, organization_id: int, notifications: Sequence[Record], now: datetime
) -> None:
    bodies, slices = list[str](), Slices(organization_id)
    for item in notifications:
        bodies.append(item.body())
        await slices.pause()
    await connection.execute(
        _NOTIFY,
        {
            "organization_id": organization_id,
            "now": now,
            "customer_ids": [item.customer_id for item in notifications],
            "notification_ids": [item.notification_id for item in notifications],
            "alert_ids": [item.alert_id for item in notifications],
            "gauge_ids": [item.gauge_id for item in notifications],
            "sequences": [item.sequence for item in notifications],
            "event_types": [item.event_type for item in notifications],
            "condition_types": [item.condition_type for item in notifications],
            "bodies": orjson.dumps(bodies).decode(),
        },
    )


async def refusal(
    connection: DriverConnection,
    organization_id: int,
    stored: Sequence[StoredState],
    notifications: Sequence[Record],
    now: datetime,
) -> Exception | None:
    """Why the database would not store these states and notifications; None when it would. Nothing stays stored.

    Raises what is a failure of the database and not of what is stored.
    """
    try:
        async with connection.transaction(force_rollback=True):
            if stored:
                await write_states(connection, organization_id, stored)
            if notifications:
                await write_notifications(connection, organization_id, notifications, now)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        return error
    return None


def state_json(state: AlertState) -> dict[str, Any]:
    """The state as alert_state.reached keeps it."""
    shown = {}
    for key, reached in state.reached.items():
        entry: dict[str, Any] = {"level": format_decimal(reached.level), "time": reached.time.isoformat()}
        if reached.silent:
            entry["silent"] = True
        if reached.rungs:
            entry["rungs"], entry["silent_rungs"] = reached.rungs, reached.silent_rungs
        shown[key] = entry
    return shown


def state_from_json(stored: dict[str, Any]) -> AlertState:
    """The state that `state_json` wrote."""
    return AlertState(
        {
            key: Reached(
                Decimal(entry["level"]),
                datetime.fromisoformat(entry["time"]),
                entry.get("silent", False),
                entry.get("rungs", 0),
                entry.get("silent_rungs", 0),
            )
            for key, entry in stored.items()
        }
    )
