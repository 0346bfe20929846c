"""Gauges: the upsert that moves them, their locks, and what an evaluation writes back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from evaluator.amounts import ZERO
from evaluator.gauges import Gauge
from store.citus.shard_tables import ShardsOf, by_shard
from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms, on_cluster
from store.postgres.json_rows import json_rows

NEVER_EVALUATED = -1  # the rules_epoch of a gauge that was inserted and is not evaluated yet


Bounds = tuple[Decimal, Decimal]  # of a running sum that starts at 0: its lowest and its highest point


@dataclass(eq=False, slots=True)
class Moves:
    """What a batch of events does to additive gauges, in columns: thousands of gauges move in one commit.

    gauge_ids: in 32 digits. totals: the sums of the amounts. required_epochs: a gauge that was last evaluated before
    its epoch must be evaluated. bounds: of the running sums of the amounts; None where no amount is negative.
    """

    customer_ids: Sequence[str]
    gauge_ids: Sequence[str]
    totals: Sequence[Decimal]
    required_epochs: Sequence[int]
    bounds: Sequence[Bounds] | None = None

    def part(self, indexes: Sequence[int]) -> "Moves":
        """Some of the moves."""

        def of(column: Sequence[Any]) -> list[Any]:
            return [column[index] for index in indexes]

        return Moves(
            of(self.customer_ids),
            of(self.gauge_ids),
            of(self.totals),
            of(self.required_epochs),
            None if self.bounds is None else of(self.bounds),
        )


@dataclass(frozen=True, slots=True)
class Moved:
    """A gauge after the move.

    index: of its move. rules_epoch: the epoch at which it was last evaluated; NEVER_EVALUATED for a new gauge.
    scale: see `Measure.shown`. is_stale: the gauge is new, or was last evaluated before the required epoch.
    has_tripped: it reached a trip level between the first event and the last.
    """

    index: int
    value: Decimal
    rules_epoch: int
    scale: Decimal | None
    is_stale: bool
    has_tripped: bool

    @property
    def needs_evaluation(self) -> bool:
        """Whether the alerts on it may have something to report."""
        return self.is_stale or self.has_tripped


# Adds to gauges, creates the missing ones, and returns those that must be evaluated. Rows are inserted and locked in
# key order, here and in `lock`, so that two transactions do not deadlock. Each column comes as one text with tabs
# between the values (no id contains a tab): the driver converts arrays value by value, which takes longer for
# thousands of gauges than the statement itself.
#
# A column is empty where it says nothing: highs and lows where all gauges only rise, required epochs where they are
# all `most_required`. `candidate` has few of the gauges then, and all that must be evaluated: only these are compared
# with their own row of the input.
_INPUT = """
    SELECT * FROM unnest(
        string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[],
        string_to_array(%(totals)s, E'\t')::numeric[], string_to_array(%(highs)s, E'\t')::numeric[],
        string_to_array(%(lows)s, E'\t')::numeric[], string_to_array(%(required_epochs)s, E'\t')::bigint[]
    ) WITH ORDINALITY AS i (customer_id, gauge_id, total, high, low, required_epoch, position)
"""
_MOVE_INPUT = """
WITH {ctes}moved AS (
    INSERT INTO gauge AS g (organization_id, customer_id, gauge_id, value, rules_epoch, update_time)
    SELECT %(organization_id)s, customer_id, gauge_id, total, -1, %(now)s
    FROM {input} ORDER BY customer_id COLLATE "C", gauge_id
    ON CONFLICT (organization_id, customer_id, gauge_id)
        DO UPDATE SET value = g.value + excluded.value, update_time = excluded.update_time
    RETURNING gauge_id, value, trip_above, trip_below, rules_epoch, scale
), candidate AS (
    SELECT * FROM moved
    WHERE %(compare_all)s OR rules_epoch < %(most_required)s OR value >= trip_above
        OR value - %(most_total)s::numeric <= trip_below
)
SELECT i.position, m.value, m.rules_epoch, m.scale, is_stale, has_tripped
FROM candidate m JOIN {input_again} i USING (gauge_id), LATERAL (
    SELECT m.rules_epoch < coalesce(i.required_epoch, %(most_required)s),
        coalesce(m.value - i.total + coalesce(i.high, i.total) >= m.trip_above, false)
        OR coalesce(m.value - i.total + coalesce(i.low, 0) <= m.trip_below, false)
) AS c (is_stale, has_tripped)
WHERE %(return_all)s OR is_stale OR has_tripped
"""
# On a cluster, Citus sends the rows of a CTE that an INSERT reads to all nodes, which makes each a participant
# of the commit. So the input is read twice there.
_MOVE = Forms(
    _MOVE_INPUT.format(ctes=f"input AS ({_INPUT}), ", input="input", input_again="input").encode(),
    _MOVE_INPUT.format(ctes="", input=f"({_INPUT}) AS input", input_again=f"({_INPUT})").encode(),
)


# On a cluster, an INSERT of rows that a query makes sends them to each node as files first. An UPDATE that joins its
# input goes to the shards as it is, so it moves the gauges that exist. Its rows are locked in no certain order: two
# servers that move the same gauges can deadlock, and one of them commits again.
_MOVE_EXISTING = f"""
UPDATE gauge AS g SET value = g.value + i.total, update_time = %(now)s
FROM ({_INPUT}) AS i
WHERE g.organization_id = %(organization_id)s AND g.customer_id = i.customer_id COLLATE "C"
    AND g.gauge_id = i.gauge_id AND g.customer_id = ANY(%(customers)s)
RETURNING i.position, g.value, g.rules_epoch, g.scale, g.rules_epoch < coalesce(i.required_epoch, %(most_required)s),
    coalesce(g.value - i.total + coalesce(i.high, i.total) >= g.trip_above, false)
        OR coalesce(g.value - i.total + coalesce(i.low, 0) <= g.trip_below, false)
""".encode()


async def move(
    connection: DriverConnection,
    organization_id: int,
    moves: Moves,
    now: datetime,
    return_all: bool,
    shards: ShardsOf | None = None,
) -> list[Moved]:
    """Adds to additive gauges and creates those that do not exist; the rows stay locked.

    Returns the gauges that must be evaluated; with `return_all`, all gauges. shards: of all customers, if the
    transaction holds them at this node.
    """
    if shards is not None:
        async with connection.pipeline():
            sent = await send_move_of_shards(connection, organization_id, moves, now, return_all, shards)
        return await moved_of_shards(sent)
    if not on_cluster(connection):
        return await moved(await send_move(connection, organization_id, moves, now, return_all))
    parameters = _parameters(organization_id, moves, now, return_all)
    found = await _moved_existing(connection, moves, parameters)
    missing = sorted(set(range(len(moves.totals))).difference(one.index for one in found))
    if missing:
        made = await moved(await send_move(connection, organization_id, moves.part(missing), now, return_all))
        found += [replace(one, index=missing[one.index]) for one in made]
    return found if return_all else [one for one in found if one.needs_evaluation]


async def _moved_existing(connection: DriverConnection, moves: Moves, parameters: dict[str, Any]) -> list[Moved]:
    """Moves the gauges that exist."""
    customer_ids = list(set(moves.customer_ids))
    return await moved(await connection.execute(_MOVE_EXISTING, {**parameters, "customers": customer_ids}))


async def send_move(
    connection: DriverConnection, organization_id: int, moves: Moves, now: datetime, return_all: bool
) -> Cursor:
    """Sends the statement of `move`; `moved` reads its result."""
    return await connection.execute(_MOVE.on(connection), _parameters(organization_id, moves, now, return_all))


MovesSent = Sequence[tuple[Sequence[int], Cursor]]  # for each shard the indexes of its moves


async def send_move_of_shards(
    connection: DriverConnection,
    organization_id: int,
    moves: Moves,
    now: datetime,
    return_all: bool,
    shards: ShardsOf,
) -> MovesSent:
    """Sends the statements of `move` to shards that lie at this node; `moved_of_shards` reads the result."""
    sent = []
    for shard, indexes in by_shard(moves.customer_ids, shards).items():
        statement = _MOVE.plain.replace(b"INTO gauge AS", b"INTO %b AS" % shard.gauge.encode())
        parameters = _parameters(organization_id, moves.part(indexes), now, return_all)
        sent.append((indexes, await connection.execute(statement, parameters)))
    return sent


async def moved_of_shards(sent: MovesSent) -> list[Moved]:
    """The result of `send_move_of_shards`."""
    return [
        Moved(indexes[position - 1], *rest) for indexes, cursor in sent for position, *rest in await cursor.fetchall()
    ]


def _parameters(organization_id: int, moves: Moves, now: datetime, return_all: bool) -> dict[str, Any]:
    bounds, epochs = moves.bounds, set(moves.required_epochs)
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join(moves.customer_ids),
        "gauge_ids": "\t".join(moves.gauge_ids),
        "totals": "\t".join(map(str, moves.totals)),
        "lows": "\t".join([str(low) for low, _ in bounds]) if bounds else "",
        "highs": "\t".join([str(high) for _, high in bounds]) if bounds else "",
        "required_epochs": "\t".join(map(str, moves.required_epochs)) if len(epochs) > 1 else "",
        "most_required": max(epochs, default=0),
        "most_total": max(moves.totals, default=ZERO),
        "now": now,
        "compare_all": return_all or bounds is not None,
        "return_all": return_all,
    }


async def moved(cursor: Cursor) -> list[Moved]:
    """The result of `send_move`."""
    return [Moved(position - 1, *rest) for position, *rest in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Locked:
    """The stored gauge, which this transaction has locked. rules_epoch: as in `Moved`."""

    value: Decimal
    rules_epoch: int
    latest_event_time: datetime | None
    latest_event_id: str | None
    scale: Decimal | None


# Creates the missing gauges and locks the others, in one pass in key order. Two passes would deadlock: a transaction
# that has created the last gauge waits for the first one, and a `move` that holds the first one waits for the last.
_LOCK = """
INSERT INTO gauge AS g (organization_id, customer_id, gauge_id, value, rules_epoch, update_time)
SELECT %(organization_id)s, customer_id, gauge_id, 0, -1, %(now)s
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id)
ORDER BY customer_id COLLATE "C", gauge_id
ON CONFLICT (organization_id, customer_id, gauge_id) DO UPDATE SET update_time = g.update_time
RETURNING gauge_id, value, rules_epoch, latest_event_time, latest_event, scale
"""


async def lock(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge], now: datetime
) -> dict[UUID, Locked]:
    """Locks gauges, and creates those that do not exist. Returns them by id."""
    cursor = await connection.execute(
        _LOCK,
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_hex for gauge in gauges]),
            "now": now,
        },
    )
    return {
        gauge_id: Locked(value, epoch, latest_time, _latest_id(latest_time, latest), scale)
        for gauge_id, value, epoch, latest_time, latest, scale in await cursor.fetchall()
    }


# Gauges by their keys; nothing is locked.
_STORED = """
SELECT g.gauge_id, g.value, g.rules_epoch, g.latest_event_time, g.latest_event, g.scale, g.update_time
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id)
JOIN gauge g ON g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id {shards}
"""
_OF_CUSTOMERS = r"g.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))"
_THOSE_STORED = Forms.naming_shards(_STORED, _OF_CUSTOMERS)


async def stored(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge]
) -> dict[UUID, tuple[Locked, datetime]]:
    """Those of the gauges that exist, as `lock` returns them but without a lock, and when each last moved."""
    cursor = await connection.execute(
        _THOSE_STORED.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_hex for gauge in gauges]),
        },
    )
    return {
        gauge_id: (Locked(value, epoch, latest_time, _latest_id(latest_time, latest), scale), update_time)
        for gauge_id, value, epoch, latest_time, latest, scale, update_time in await cursor.fetchall()
    }


# The epochs at which gauges were last evaluated; without those that show 0, which may have no events.
_EPOCHS = """
SELECT g.gauge_id, g.rules_epoch
FROM unnest(string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(gauge_ids)s, E'\t')::uuid[])
    AS i (customer_id, gauge_id)
JOIN gauge g ON g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id
WHERE g.value <> 0 {shards}
"""
_THOSE_EPOCHS = Forms.naming_shards(_EPOCHS, _OF_CUSTOMERS)


async def epochs_with_value(
    connection: DriverConnection, organization_id: int, gauges: Sequence[Gauge]
) -> dict[UUID, int]:
    """The epochs at which those of the gauges that show another value than 0 were last evaluated. Locks nothing."""
    if not gauges:
        return {}
    cursor = await connection.execute(
        _THOSE_EPOCHS.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
            "gauge_ids": "\t".join([gauge.gauge_hex for gauge in gauges]),
        },
    )
    return dict(await cursor.fetchall())


def _latest_id(latest_time: datetime | None, stored: str | None) -> str | None:
    """The id in gauge.latest_event; None if an older server, which does not know this column, wrote a newer time."""
    time, _, event_id = (stored or "").partition(" ")
    return event_id if latest_time is not None and time == latest_time.astimezone(UTC).isoformat() else None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation stores of a gauge that its transaction has locked.

    trip_above, trip_below: the nearest levels above and below the value at which it must be evaluated again.
    """

    gauge: Gauge
    value: Decimal
    latest_event_time: datetime | None
    trip_above: Decimal | None
    trip_below: Decimal | None
    rules_epoch: int
    scale: Decimal | None = None
    latest_event_id: str | None = None

    @property
    def latest_event(self) -> str | None:
        """The event of the value of LATEST, as the column gauge.latest_event stores it: time and id."""
        if self.latest_event_time is None or self.latest_event_id is None:
            return None
        return f"{self.latest_event_time.astimezone(UTC).isoformat()} {self.latest_event_id}"


# Stores evaluated gauges. The rows come as one JSON text: as arrays, the driver converts 14 values for each gauge.
_WRITE = """
UPDATE gauge g SET
    value = i.value, latest_event_time = i.latest_event_time, latest_event = i.latest_event,
    trip_above = i.trip_above, trip_below = i.trip_below,
    rules_epoch = i.rules_epoch, subscription_id = i.subscription_id, measure = i.measure,
    group_values = i.group_values, period_start = i.period_start, period_end = i.period_end, scale = i.scale,
    update_time = %(now)s
FROM json_to_recordset(%(evaluated)s::json) AS i (
    customer_id text, gauge_id uuid, value numeric, latest_event_time timestamptz, latest_event text,
    trip_above numeric, trip_below numeric, rules_epoch bigint, subscription_id text, measure text,
    group_values jsonb, period_start timestamptz, period_end timestamptz, scale numeric
)
WHERE g.organization_id = %(organization_id)s
    AND g.customer_id = i.customer_id COLLATE "C" AND g.gauge_id = i.gauge_id {shards}
"""
_WRITE_THOSE = Forms.naming_shards(_WRITE, _OF_CUSTOMERS)


async def write(
    connection: DriverConnection, organization_id: int, evaluated: Sequence[Evaluated], now: datetime
) -> None:
    """Stores evaluated gauges. The transaction must hold their locks."""
    rows = await json_rows(map(_row, evaluated), organization_id)
    customers = {item.gauge.customer_id for item in evaluated} if on_cluster(connection) else ()
    parameters = {
        "organization_id": organization_id,
        "now": now,
        "evaluated": rows,
        "customer_ids": "\t".join(customers),
    }
    await connection.execute(_WRITE_THOSE.on(connection), parameters)


def _row(item: Evaluated) -> dict[str, Any]:
    return {
        "customer_id": item.gauge.customer_id,
        "gauge_id": item.gauge.gauge_id,
        "value": item.value,
        "latest_event_time": item.latest_event_time,
        "latest_event": item.latest_event,
        "trip_above": item.trip_above,
        "trip_below": item.trip_below,
        "rules_epoch": item.rules_epoch,
        "subscription_id": item.gauge.subscription_id,
        "measure": item.gauge.measure.key,
        "group_values": item.gauge.group,
        "period_start": item.gauge.period.start,
        "period_end": item.gauge.period.end,
        "scale": item.scale,
    }


# Stores values that gauges have counted, and returns those that are new.
_COUNT_VALUES = """
INSERT INTO unique_value (organization_id, customer_id, gauge_id, value)
SELECT %(organization_id)s, customer_id, gauge_id, value
FROM unnest(%(customer_ids)s::text[], %(gauge_ids)s::uuid[], %(values)s::text[]) AS i (customer_id, gauge_id, value)
ON CONFLICT DO NOTHING
RETURNING gauge_id, value
"""


async def count_values(
    connection: DriverConnection, organization_id: int, values: Sequence[tuple[Gauge, str]]
) -> set[tuple[UUID, str]]:
    """Stores the values of UNIQUE_COUNT gauges, which this transaction has locked; returns those that are new."""
    cursor = await connection.execute(
        _COUNT_VALUES,
        {
            "organization_id": organization_id,
            "customer_ids": [gauge.customer_id for gauge, _ in values],
            "gauge_ids": [gauge.gauge_id for gauge, _ in values],
            "values": [value for _, value in values],
        },
    )
    return {(row[0], row[1]) for row in await cursor.fetchall()}
