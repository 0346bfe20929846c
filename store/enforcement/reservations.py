"""Reservations: read and written by the holder of the wallets of their customers."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.enforcement.usage import Usage
from store.enforcement.records import Record
from store.postgres.database import Cursor, DriverConnection, Row

# The columns of a record, as `record_of` reads them.
COLUMNS = """
    r.customer_id, r.reservation_id, r.state, replace(r.digest::text, '-', ''), r.subscription_id, r.metric_id,
    r.quantity, r.cost, r.currency, r.properties::text, r.overage_policy, r.outcome, r.granted_quantity,
    r.granted_cost, r.charges::text, r.draws::text, r.answer::text, r.event_time, r.create_time, r.expire_time,
    r.end_time, r.settled_quantity, r.settled_cost, r.late, r.settlement::text
"""

_READ = f"""
SELECT {COLUMNS}
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(reservation_ids)s, E'\t'))
    AS i (customer_id, reservation_id)
JOIN reservation r ON r.organization_id = %(organization_id)s
    AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
"""


def _rows(columns: Mapping[str, str]) -> str:
    """Rows `i` of columns that come as parameters, each as one text with tabs between the values."""
    arrays = ", ".join(rf"string_to_array(%({name})s, E'\t', '')::{kind}[]" for name, kind in columns.items())
    return f"unnest({arrays}) AS i ({', '.join(columns)})"


# The columns that are stored when a reservation is made, each with its type.
_MADE = {
    "customer_id": "text",
    "reservation_id": "text",
    "state": "text",
    "digest": "uuid",
    "subscription_id": "text",
    "metric_id": "text",
    "quantity": "numeric",
    "cost": "numeric",
    "currency": "text",
    "properties": "jsonb",
    "overage_policy": "text",
    "outcome": "text",
    "granted_quantity": "numeric",
    "granted_cost": "numeric",
    "charges": "jsonb",
    "draws": "jsonb",
    "answer": "jsonb",
    "event_time": "timestamptz",
    "create_time": "timestamptz",
    "expire_time": "timestamptz",
    "end_time": "timestamptz",
    "settled_quantity": "numeric",
    "settled_cost": "numeric",
    "settlement": "jsonb",
}
_INSERT = f"""
INSERT INTO reservation (organization_id, {", ".join(_MADE)})
SELECT %(organization_id)s, i.* FROM {_rows(_MADE)}
"""

# The columns that change later.
_CHANGED = {
    "customer_id": "text",
    "reservation_id": "text",
    "state": "text",
    "expire_time": "timestamptz",
    "end_time": "timestamptz",
    "settled_quantity": "numeric",
    "settled_cost": "numeric",
    "late": "boolean",
    "settlement": "jsonb",
}
_UPDATE = f"""
UPDATE reservation r SET {", ".join(f"{name} = i.{name}" for name in list(_CHANGED)[2:])}
FROM {_rows(_CHANGED)}
WHERE r.organization_id = %(organization_id)s
    AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
"""


async def send_read(connection: DriverConnection, organization_id: int, keys: Collection[tuple[str, str]]) -> Cursor:
    """Sends the statement that reads reservations by customer and id; `records` reads the result."""
    return await connection.execute(
        _READ,
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([customer_id for customer_id, _ in keys]),
            "reservation_ids": "\t".join([reservation_id for _, reservation_id in keys]),
        },
    )


async def records(cursor: Cursor) -> dict[tuple[str, str], Record]:
    """The result of `send_read`, by customer and id; without those that do not exist."""
    return {(row[0], row[1]): record_of(row) for row in await cursor.fetchall()}


async def read(
    connection: DriverConnection, organization_id: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Record]:
    """Reservations by customer and id; without those that do not exist."""
    return await records(await send_read(connection, organization_id, keys))


def record_of(row: Row) -> Record:
    """The record in a row with `COLUMNS`."""
    (
        customer_id,
        reservation_id,
        state,
        digest,
        subscription_id,
        metric_id,
        quantity,
        cost,
        currency,
        properties,
        policy,
        outcome,
        granted_quantity,
        granted_cost,
        charges,
        draws,
        answer,
        event_time,
        create_time,
        expire_time,
        end_time,
        settled_quantity,
        settled_cost,
        late,
        settlement,
    ) = row
    usage = Usage(
        customer_id,
        metric_id,
        quantity,
        cost,
        currency,
        subscription_id,
        {} if properties is None else orjson.loads(properties),
        event_time,
    )
    reservation = Reservation(
        reservation_id,
        usage,
        OveragePolicy(policy),
        ReservationState(state),
        Outcome(outcome),
        granted_quantity,
        granted_cost,
        create_time,
        expire_time,
        end_time,
        settled_quantity,
        settled_cost,
        late,
    )
    return Record(reservation, digest, charges, draws, answer, settlement)


async def send_write(connection: DriverConnection, organization_id: int, written: Sequence[Record]) -> None:
    """Sends the statements that store records which have changed."""
    new = [record for record in written if record.is_new]
    if new:
        await connection.execute(_INSERT.encode(), _columns(organization_id, _MADE, map(_made, new)))
    known = [record for record in written if not record.is_new]
    if known:
        await connection.execute(_UPDATE.encode(), _columns(organization_id, _CHANGED, map(_changed, known)))


def _columns(organization_id: int, names: Collection[str], rows: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = dict(zip(names, map("\t".join, zip(*rows, strict=True)), strict=True))
    parameters["organization_id"] = organization_id
    return parameters


def _made(record: Record) -> tuple[str, ...]:
    """The values of `_MADE`; an empty text stands for NULL."""
    one = record.reservation
    usage = one.usage
    return (
        usage.customer_id,
        one.reservation_id,
        one.state.value,
        record.digest,
        usage.subscription_id or "",
        usage.metric_id,
        str(usage.quantity),
        _text(usage.cost),
        usage.currency or "",
        orjson.dumps(usage.properties).decode() if usage.properties else "",
        one.policy.value,
        one.outcome.value,
        str(one.granted_quantity),
        _text(one.granted_cost),
        record.charges or "",
        record.draws or "",
        record.answer or "",
        _time(usage.event_time),
        _time(one.create_time),
        _time(one.expire_time),
        _time(one.end_time),
        _text(one.settled_quantity),
        _text(one.settled_cost),
        record.settlement or "",
    )


def _changed(record: Record) -> tuple[str, ...]:
    """The values of `_CHANGED`."""
    one = record.reservation
    return (
        one.usage.customer_id,
        one.reservation_id,
        one.state.value,
        _time(one.expire_time),
        _time(one.end_time),
        _text(one.settled_quantity),
        _text(one.settled_cost),
        "true" if one.late else "false",
        record.settlement or "",
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _time(time: datetime | None) -> str:
    return "" if time is None else time.isoformat()
