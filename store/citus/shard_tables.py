"""The tables of a shard under their own names, for the statements of a commit at the node where the shard lies.

Citus names the part of a table that a shard has `event_102154`. To the node, it is a table like any other: a
statement that names it is planned as on one PostgreSQL. Through the distributed table, the same statement takes 1.5
to 2 times as much CPU in a large commit, and 4 to 8 times in a small one.

What Citus does for a statement about the distributed table, such a transaction does itself: it takes the lock of the
shard's metadata, shared, and then finds out whether the shard still lies here. A move takes the lock, exclusively, on
all nodes before it copies the last rows, until its own commit.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms, NeedsCoordinator

# Shards that were split meanwhile do not exist any more, and have no lock. 5: SHARE.
_HOLD = """
SELECT lock_shard_metadata(5, array_agg(shardid)) FROM pg_catalog.pg_dist_shard WHERE shardid = ANY(%s::bigint[])
"""
_PLACED = """
SELECT count(*) FROM pg_catalog.pg_dist_placement
WHERE shardid = ANY(%s::bigint[]) AND groupid = (SELECT groupid FROM pg_catalog.pg_dist_local_group)
"""


@dataclass(frozen=True, slots=True)
class ShardTables:
    """The names of the tables of one shard. shard_id: of one of them; they lie, and move, together."""

    shard_id: int
    event: str
    gauge: str
    wallet: str
    customer: str
    subscription: str
    meter: str
    meter_minute: str
    reservation: str

    def __hash__(self) -> int:
        """The shard's number: each event of a commit looks its tables up."""
        return self.shard_id


TABLES = tuple(field.name for field in fields(ShardTables))[1:]
_NAMED = re.compile(rb"\b(INTO|FROM|JOIN|UPDATE) (%b)\b" % "|".join(TABLES).encode())


ShardsOf = Mapping[str, ShardTables]  # by customer


def by_shard(customer_ids: Iterable[str], shards: ShardsOf) -> dict[ShardTables, list[int]]:
    """The indexes of rows by the shards of their customers. In the order of shards, which is that of locks, too."""
    found: dict[ShardTables, list[int]] = {}
    for index, customer_id in enumerate(customer_ids):
        found.setdefault(shards[customer_id], []).append(index)
    return {one: found[one] for one in sorted(found, key=lambda shard: shard.shard_id)}


Part = tuple[ShardTables | None, Sequence[int]]  # of rows: the indexes of those of a shard; None: all are one part


def parts_of(customer_ids: Sequence[str], shards: ShardsOf | None) -> list[Part]:
    """The rows of each shard, as `by_shard`; one part with all of them if no shards are named."""
    if shards is None:
        return [(None, range(len(customer_ids)))]
    return list(by_shard(customer_ids, shards).items())


@lru_cache(maxsize=10_000)
def in_shard(statement: bytes, shard: ShardTables) -> bytes:
    """A statement of one PostgreSQL with the tables of a shard in place of the distributed ones."""
    return _NAMED.sub(lambda found: b"%b %b" % (found[1], getattr(shard, found[2].decode()).encode()), statement)


def form_for(forms: Forms, connection: DriverConnection, shard: ShardTables | None) -> bytes:
    """The form of a statement that names the tables of a shard; without one, that for the connection's database."""
    return forms.on(connection) if shard is None else in_shard(forms.plain, shard)


async def send_hold(connection: DriverConnection, shards: Collection[ShardTables]) -> Cursor:
    """Sends what keeps shards at this node until the transaction ends, in a pipeline; `check` reads the result."""
    ids = [one.shard_id for one in shards]
    await connection.execute(_HOLD, (ids,))
    return await connection.execute(_PLACED, (ids,))


async def check(cursor: Cursor, shards: Collection[ShardTables]) -> None:
    """Raises NeedsCoordinator if one of the shards does not lie here any more."""
    row = await cursor.fetchone()
    if row is None or row[0] != len(shards):
        raise NeedsCoordinator
