"""Moves of additive gauges: the statements by which a commit of usage adds to them.

On one PostgreSQL it is one upsert. On a cluster an update moves the gauges that exist, and the upsert creates the
others; a commit at a node names the tables of its shards, and each shard gets the upsert of one PostgreSQL.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.amounts import ZERO
from store.citus.shard_tables import ShardsOf, by_shard
from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms, on_cluster

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

    index: of its move. rules_epoch: as in `gauges.Locked`. scale: see `Measure.shown`. is_stale: the gauge is new, or
    was last evaluated before the required epoch. has_tripped: it reached a trip level between the first event and the
    last.
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
# key order, here and in `gauges.lock`, so that two transactions do not deadlock. Each column comes as one text with
# tabs between the values (no id contains a tab): the driver converts arrays value by value, which takes longer for
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
