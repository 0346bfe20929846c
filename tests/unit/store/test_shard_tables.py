"""The tables of shards: which rows of a commit are of which shard."""

from store.citus import shard_tables
from store.citus.shard_tables import ShardTables, by_shard


def test_rows_are_divided_in_the_order_of_shards() -> None:
    first, second = (
        ShardTables(number, **{name: f"{name}_{number}" for name in shard_tables.TABLES}) for number in (1, 2)
    )
    found = by_shard(["b", "a", "b", "c"], {"a": first, "b": second, "c": first})
    assert list(found.items()) == [(first, [1, 3]), (second, [0, 2])]
