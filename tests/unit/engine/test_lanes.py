"""The lanes of customers on a cluster, while shards move."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from engine.ingest.batches import Batch
from engine.ingest.lanes import Lanes
from engine.ingest.nodes import Nodes
from engine.limits import DEFAULT_LIMITS
from evaluator.events import UsageEvent
from runtime.fair_semaphore import FairSemaphore
from store.citus import customer_nodes
from store.citus.customer_nodes import NodeMap
from store.citus.nodes import Node
from store.identity import organizations
from store.identity.organizations import Organization

ACME = Organization(1, "acme")
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
FIRSTS = [-(2**31), 0]  # of two shards


class Coordinator:
    """Accepts all that is asked of it."""

    url = "postgresql://postgres@127.0.0.1:1/tidemark"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Without a connection."""
        yield

    reading = transaction


def batch_of(*customers: str) -> Batch:
    """A batch with one event of each customer."""
    return Batch([UsageEvent(one, one, NOW, "calls", Decimal(1), None, None, None, {}) for one in customers])


async def test_lanes_are_those_of_the_map_by_which_their_customers_were_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker gets a shard while the shard of a new customer is looked for."""
    moves = False
    one_worker, other = Node("127.0.0.1", 1), Node("127.0.0.1", 2)

    async def read(_: object) -> NodeMap:
        return NodeMap(FIRSTS, [one_worker, other], [None, None])

    async def hashes(_: object, customer_ids: Sequence[str]) -> list[int]:
        if moves:
            await nodes.refresh()
        return [-5 if one == "acme" else 5 for one in customer_ids]

    async def prepare(_: object, organization_id: int) -> int:
        assert organization_id == ACME.organization_id
        return 0

    monkeypatch.setattr(customer_nodes, "read", read)
    monkeypatch.setattr(customer_nodes, "hashes", hashes)
    monkeypatch.setattr(organizations, "prepare_nodes", prepare)
    nodes = Nodes(cast(Any, Coordinator()), NodeMap(FIRSTS, [one_worker] * 2, [None, None]), 1, {})
    lanes = Lanes(cast(Any, lambda *_: None), DEFAULT_LIMITS.ingest, FairSemaphore(1), 1, nodes)
    [before] = await lanes.parts_of(ACME, batch_of("acme", "beta"))
    moves = True
    first, second = await lanes.parts_of(ACME, batch_of("acme", "gamma", "beta"))
    assert [list(one.indexes or ()) for one in (first, second)] == [[0], [1, 2]]
    assert before.lane not in (first.lane, second.lane)
    [again] = await lanes.parts_of(ACME, batch_of("gamma"))
    assert again.lane is second.lane
    await nodes.stop()
