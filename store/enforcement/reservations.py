"""Reservations: read and written by the holder of the wallets of their customers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import orjson

from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.enforcement.usage import Usage
from store.citus.shard_tables import ShardsOf, form_for, parts_of
from store.enforcement.records import Record
from store.postgres import row_locks
from store.postgres.database import DriverConnection, Row
from store.postgres.distributed import Forms
from store.postgres.row_locks import Sent

# A look-up is faster than a call of the enumeration.
_POLICIES = {one.value: one for one in OveragePolicy}
_STATES = {one.value: one for one in ReservationState}
_OUTCOMES = {one.value: one for one in Outcome}

# The columns of a record, as `record_of` reads them.
COLUMNS = """
    r.customer_id, r.reservation_id, r.state, r.digest::text, r.subscription_id, r.metric_id,
    r.quantity, r.cost, r.currency, r.properties::text, r.overage_policy, r.outcome, r.granted_quantity,
    r.granted_cost, r.charges::text, r.draws::text, r.answer::text, r.event_time, r.create_time, r.expire_time,
    r.end_time, r.settled_quantity, r.settled_cost, r.late, r.settlement::text
"""

# LATERAL with LIMIT, and subqueries: see `meters`.
_READ_BY_KEY = f"""
SELECT r.*
FROM unnest(
    (SELECT string_to_array(%(customer_ids)s, E'\t')), (SELECT string_to_array(%(reservation_ids)s, E'\t'))
) AS i (customer_id, reservation_id)
CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM reservation r
    WHERE r.organization_id = %(organization_id)s
        AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
    LIMIT 1
) AS r
"""
_READ_JOINED = f"""
SELECT {COLUMNS}
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(reservation_ids)s, E'\t'))
    AS i (customer_id, reservation_id)
JOIN reservation r ON r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C"
WHERE r.organization_id = %(organization_id)s AND r.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))
"""
_READ = Forms(_READ_BY_KEY.encode(), _READ_JOINED.encode())


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
""".encode()

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
_UPDATE = Forms.naming_shards(
    f"""
UPDATE reservation r SET {", ".join(f"{name} = i.{name}" for name in list(_CHANGED)[2:])}
FROM {_rows(_CHANGED)}
WHERE r.organization_id = %(organization_id)s
    AND r.customer_id = i.customer_id COLLATE "C" AND r.reservation_id = i.reservation_id COLLATE "C" {{shards}}
""",
    r"r.customer_id = ANY(string_to_array(%(customer_id)s, E'\t'))",
)


async def send_read(
    connection: DriverConnection,
    organization_id: int,
    keys: Collection[tuple[str, str]],
    shards: ShardsOf | None = None,
) -> Sent:
    """Sends the statement that reads reservations by customer and id; `records` reads the result.

    shards: of all customers, if the transaction holds them at this node.
    """
    sent, listed = [], list(keys)
    for shard, indexes in parts_of([customer_id for customer_id, _ in listed], shards):
        part = keys_of(organization_id, [listed[index] for index in indexes])
        sent.append(await connection.execute(form_for(_READ, connection, shard), part))
    return sent


def keys_of(organization_id: int, keys: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Keys as parameters."""
    keys = list(keys)
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join([customer_id for customer_id, _ in keys]),
        "reservation_ids": "\t".join([reservation_id for _, reservation_id in keys]),
    }


async def records(sent: Sent) -> dict[tuple[str, str], Record]:
    """The result of `send_read`, by customer and id; without those that do not exist."""
    return {(row[0], row[1]): record_of(row) for row in await row_locks.rows(sent)}


async def read(
    connection: DriverConnection,
    organization_id: int,
    keys: Collection[tuple[str, str]],
    shards: ShardsOf | None = None,
) -> dict[tuple[str, str], Record]:
    """Reservations by customer and id; without those that do not exist. shards: as of `send_read`."""
    return await records(await send_read(connection, organization_id, keys, shards))


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
        _POLICIES[policy],
        _STATES[state],
        _OUTCOMES[outcome],
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


async def send_write(
    connection: DriverConnection, organization_id: int, written: Sequence[Record], shards: ShardsOf | None = None
) -> None:
    """Sends the statements that store records which have changed. shards: as of `send_read`."""
    new = [record for record in written if record.is_new]
    if new:
        await connection.execute(_INSERT, {"organization_id": organization_id, **_filled(_made(new))})
    known = [record for record in written if not record.is_new]
    if known:
        for shard, indexes in parts_of([one.reservation.usage.customer_id for one in known], shards):
            changed = _filled(_changed([known[index] for index in indexes]))
            await connection.execute(
                form_for(_UPDATE, connection, shard), {"organization_id": organization_id, **changed}
            )


def _made(records: Sequence[Record]) -> dict[str, str]:
    """The columns of `_MADE`; an empty text stands for NULL."""
    made = [record.reservation for record in records]
    usages = [one.usage for one in made]
    return {
        **_names(made),
        "digest": "\t".join([record.digest for record in records]),
        "subscription_id": "\t".join([usage.subscription_id or "" for usage in usages]),
        "metric_id": "\t".join([usage.metric_id for usage in usages]),
        "quantity": "\t".join([str(usage.quantity) for usage in usages]),
        "cost": _texts([usage.cost for usage in usages]),
        "currency": "\t".join([usage.currency or "" for usage in usages]),
        "properties": "\t".join(
            [orjson.dumps(usage.properties).decode() if usage.properties else "" for usage in usages]
        ),
        "overage_policy": "\t".join([one.policy for one in made]),
        "outcome": "\t".join([one.outcome for one in made]),
        "granted_quantity": "\t".join([str(one.granted_quantity) for one in made]),
        "granted_cost": _texts([one.granted_cost for one in made]),
        "charges": "\t".join([record.charges or "" for record in records]),
        "draws": "\t".join([record.draws or "" for record in records]),
        "answer": "\t".join([record.answer or "" for record in records]),
        "event_time": times_of([usage.event_time for usage in usages]),
        "create_time": times_of([one.create_time for one in made]),
        **_mutable(records),
    }


def _changed(records: Sequence[Record]) -> dict[str, str]:
    """The columns of `_CHANGED`."""
    changed = [record.reservation for record in records]
    late = "\t".join(["true" if one.late else "false" for one in changed])
    return {**_names(changed), **_mutable(records), "late": late}


def _filled(columns: Mapping[str, str]) -> dict[str, str]:
    """Columns with nothing in them become empty; PostgreSQL fills them up with NULL, faster than it reads them."""
    return {name: text if text.strip("\t") else "" for name, text in columns.items()}


def _names(reservations: Sequence[Reservation]) -> dict[str, str]:
    return {
        "customer_id": "\t".join([one.usage.customer_id for one in reservations]),
        "reservation_id": "\t".join([one.reservation_id for one in reservations]),
        "state": "\t".join([one.state for one in reservations]),
    }


def _mutable(records: Sequence[Record]) -> dict[str, str]:
    changed = [record.reservation for record in records]
    return {
        "expire_time": times_of([one.expire_time for one in changed]),
        "end_time": times_of([one.end_time for one in changed]),
        "settled_quantity": _texts([one.settled_quantity for one in changed]),
        "settled_cost": _texts([one.settled_cost for one in changed]),
        "settlement": "\t".join([record.settlement or "" for record in records]),
    }


def _texts(values: Sequence[Decimal | None]) -> str:
    return "\t".join(["" if value is None else str(value) for value in values])


def times_of(values: Sequence[datetime | None]) -> str:
    """One call for all times: formatting each time by itself takes longer than all else."""
    texts = orjson.dumps(values).decode()[1:-1]
    return texts.replace("null", "").replace(",", "\t").replace('"', "")
