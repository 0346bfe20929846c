"""The look-up of the nodes of customers: tried again after a connection was lost, and by the present map only."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from engine.ingest.nodes import CustomerShards, Nodes
from store.citus import customer_nodes
from store.citus.customer_nodes import NodeMap
from store.citus.shard_tables import TABLES, ShardTables
from store.identity import organizations
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST


class Losing:
    """A database whose next connections are lost. opened: how many transactions began."""

    def __init__(self, lost: int) -> None:
        self.opened = 0
        self._lost = lost

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Fails while connections are lost."""
        self.opened += 1
        if self.opened <= self._lost:
            raise DatabaseUnavailable("lost", CONNECTION_LOST)
        yield

    reading = transaction


def nodes_of(database: Any) -> Nodes:
    """All shards lie on the coordinator."""
    return Nodes(database, NodeMap([-(2**31), 0], [None, None], [None, None]), 1, {})


async def test_shards_are_found_after_a_connection_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hashes(_: object, customer_ids: Sequence[str]) -> list[int]:
        return [-5 if one == "acme" else 5 for one in customer_ids]

    monkeypatch.setattr(customer_nodes, "hashes", hashes)
    located, database = CustomerShards(), Losing(1)
    await nodes_of(database).locate(located, {"acme", "beta"})
    assert located.shards == {"acme": 0, "beta": 1}
    assert database.opened == 2


async def test_organization_is_prepared_after_a_connection_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []

    async def prepare(_: object, organization_id: int) -> int | None:
        prepared.append(organization_id)
        return None if len(prepared) == 1 else 3  # the first time it makes rows, which do not show yet

    monkeypatch.setattr(organizations, "prepare_nodes", prepare)
    nodes = nodes_of(Losing(1))
    assert nodes.shown_epoch(7) < 0
    await nodes.prepare(7)
    assert prepared == [7, 7]
    assert nodes.shown_epoch(7) == 3


async def test_database_that_stays_away_is_reported() -> None:
    database = Losing(100)
    with pytest.raises(DatabaseUnavailable):
        await nodes_of(database).locate(CustomerShards(), {"acme"})
    assert database.opened == CONNECTION_LOST.tries


async def test_shard_that_was_split_is_not_taken_for_its_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that waits was divided by the map of before, in which the numbers of shards were others."""
    whole, first, second, other = (ShardTables(number, *(f"{one}_{number}" for one in TABLES)) for number in range(4))
    split = NodeMap([-(2**31), -10, 0], [None] * 3, [first, second, other])

    async def read(_: object) -> NodeMap:
        return split

    monkeypatch.setattr(customer_nodes, "read", read)
    nodes = Nodes(cast(Database, Losing(0)), NodeMap([-(2**31), 0], [None] * 2, [whole, other]), 1, {})
    divided = CustomerShards(nodes.version, shards={"acme": 0, "beta": 1})
    assert nodes.tables_of(0, divided, ["acme", "beta"]) == {"acme": whole, "beta": other}
    await nodes.refresh()
    assert nodes.tables_of(0, divided, ["acme"]) is nodes.tables_of(0, divided, ["beta"]) is None
    again = CustomerShards(nodes.version, shards={"acme": split.shard_of(-5), "beta": split.shard_of(5)})
    assert nodes.tables_of(0, again, ["acme", "beta"]) == {"acme": second, "beta": other}
