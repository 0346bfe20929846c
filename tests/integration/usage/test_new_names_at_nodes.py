"""On a cluster, what usage names for the first time is registered at the node that stores the usage."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from engine.ingest.commit_transactions import CommitTransactions
from engine.ingest.group import CommitGroup
from engine.ingest.monitoring import AT_NODE, NODE_COULD_NOT
from engine.rules.preparing import Prepared
from evaluator.events import UsageEvent
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_service_pb2,
    customer_pb2,
    limit_pb2,
    scope_pb2,
)
from runtime.clock import ManualClock
from store.identity import organizations
from store.postgres.database import Database
from tests.support.balances.holder import alert
from tests.support.enforcement.limits import Limits, usage
from tests.support.postgres.nodes import workers
from tests.support.usage.caller import Caller, on_customer, usage_alert
from tests.support.usage.node_servers import Server, open_server, prepared

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

_CUSTOMERS = [f"c{number}" for number in range(12)]  # of 4 shards; each node has some
_ROUNDS = 6
_OF_CUSTOMERS = "SELECT count(*), count(DISTINCT customer_id) FROM {} WHERE organization_id = %(organization_id)s"
_METRICS = "SELECT metric_id, aggregation FROM metric WHERE organization_id = %(organization_id)s ORDER BY 1"
_UNREGISTERED = """
SELECT count(*) FROM event e WHERE organization_id = %(organization_id)s AND NOT EXISTS (
    SELECT 1 FROM customer c WHERE c.organization_id = e.organization_id AND c.customer_id = e.customer_id
)
"""
_TOTALS = """
SELECT customer_id, sum(quantity) FROM event WHERE organization_id = %(organization_id)s GROUP BY 1 ORDER BY 1
"""
_GAUGES = "SELECT customer_id, value FROM gauge WHERE organization_id = %(organization_id)s ORDER BY 1"


@pytest.fixture
async def servers(caller: Caller, clock: ManualClock) -> AsyncIterator[list[Server]]:
    """Two servers beside that of the caller, which know nothing yet; an alert watches all usage."""
    await caller.create(usage_alert("1000000"))
    made = [await open_server(caller, clock, number) for number in range(2)]
    for server in made:
        await server.nodes.prepare(server.organization.organization_id)
    yield made
    for server in made:
        await server.close()


async def _assert_exact(caller: Caller) -> None:
    """Each customer of the usage is registered, and has one gauge, which has exactly what is stored."""
    assert await caller.rows(_UNREGISTERED) == [(0,)]
    assert await caller.rows(_GAUGES) == await caller.rows(_TOTALS) != []


async def test_new_customers_subscriptions_and_metrics_touch_one_node_each(
    servers: list[Server], caller: Caller
) -> None:
    server = servers[0]
    begun = prepared(server)
    events = [one._replace(subscription_id=f"s-{one.customer_id}") for one in server.events(_CUSTOMERS * 2)]
    outcome = await server.send(*events)
    assert outcome.accepted == len(events)
    assert set(+server.monitoring.placed) == {(AT_NODE,)}
    assert prepared(server) == begun
    for table in ("customer", "subscription"):
        assert await caller.rows(_OF_CUSTOMERS.format(table)) == [(12, 12)]
    assert await caller.rows(_METRICS) == [("calls", "SUM")]
    through_coordinator = server.database.waits
    await server.send(*server.events(_CUSTOMERS * 2))
    await server.send(*server.events(["c0"]))
    assert server.database.waits == through_coordinator  # the customers and the metric are known now
    await _assert_exact(caller)


async def test_customers_that_are_not_cached_are_committed_at_their_node(
    servers: list[Server], caller: Caller
) -> None:
    await servers[0].send(*servers[0].events(_CUSTOMERS))
    server = servers[1]
    await server.send(*server.events(_CUSTOMERS))
    assert set(+server.monitoring.placed) == {(AT_NODE,)}
    await _assert_exact(caller)


async def test_servers_that_register_the_same_customers_count_each_event_once(
    servers: list[Server], caller: Caller
) -> None:
    for number in range(_ROUNDS):
        customers = [f"{one}-{number}" for one in _CUSTOMERS]
        await asyncio.gather(*(server.send(*server.events(customers * 2)) for server in servers))
    assert await caller.rows(_OF_CUSTOMERS.format("customer")) == [(12 * _ROUNDS, 12 * _ROUNDS)]
    assert {value for _, value in await caller.rows(_GAUGES)} == {Decimal(4)}
    await _assert_exact(caller)


async def _put_limit(caller: Caller, customer_id: str, amount: str) -> None:
    limit = limit_pb2.Limit(
        limit_id=f"limit {customer_id}",
        customer=scope_pb2.CustomerScope(customer_id=customer_id),
        quantity=access_pb2.QuantityAccess(metric_id="calls"),
        amount=amount,
        enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
    )
    await caller.accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), metadata=caller.metadata)


async def test_rules_that_are_older_than_their_customers_apply(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    alerts = [await caller.create(usage_alert("2", scope=on_customer(one))) for one in ("c0", "c1", "c2")]
    off = alert_service_pb2.DisableAlertRequest(alert_id=alerts[2].alert_id, customer_id="c2")
    await caller.alerts.DisableAlert(off, metadata=caller.metadata)
    await _put_limit(caller, "c3", "3")
    # A customer without any commit has 0 of it.
    await caller.create(alert("50", low_remaining_commit_balance_reached={"spend": {"currency": "USD"}}))
    await server.send(*server.events([*_CUSTOMERS, *_CUSTOMERS]))
    assert set(+server.monitoring.placed) == {(AT_NODE,)}
    stored = [one for one in await caller.notifications() if "disabled" not in one.event_type]
    found = [(one.alert_id, one.customer_id) for one in stored]
    low = [one for one in found if one[0] not in {alert.alert_id for alert in alerts}]
    assert sorted(one for one in found if one not in low) == sorted(
        (alert.alert_id, one) for alert, one in zip(alerts, ("c0", "c1"), strict=False)
    )
    assert sorted(one for _, one in low) == sorted(_CUSTOMERS)
    assert await Limits(caller).remaining("c3") == "1"
    assert await caller.rows(_UNREGISTERED) == [(0,)]
    of_usage = [one for one in await caller.rows(_GAUGES) if one[1]]  # those of balances have 0
    assert of_usage == await caller.rows(_TOTALS)


async def test_change_of_rules_between_reading_and_storing_is_not_missed(
    servers: list[Server], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, prepare = servers[0], CommitTransactions.prepare
    plans = iter([True])

    async def change_after(self: CommitTransactions, database: Database, group: CommitGroup) -> Prepared:
        found = await prepare(self, database, group)
        if next(plans, False):
            await caller.create(usage_alert("3", scope=on_customer("c0")))
        return found

    monkeypatch.setattr(CommitTransactions, "prepare", change_after)
    await server.send(*server.events(["c0"] * 3))
    assert server.monitoring.placed[NODE_COULD_NOT,] == 1
    assert [one.customer_id for one in await caller.notifications()] == ["c0"]
    await server.send(*server.events(["c0"]))
    await _assert_exact(caller)


async def test_commit_that_fails_after_reading_registers_nothing(
    servers: list[Server], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, prepare = servers[0], CommitTransactions.prepare

    async def fail_after(self: CommitTransactions, database: Database, group: CommitGroup) -> Prepared:
        found = await prepare(self, database, group)
        self.rules.rolled_back(None, found.registered)
        raise LookupError("after the first transaction")

    monkeypatch.setattr(CommitTransactions, "prepare", fail_after)
    outcome = await server.send(*server.events(_CUSTOMERS))  # contained: at the coordinator
    assert outcome.accepted == len(_CUSTOMERS)
    await _assert_exact(caller)


async def test_customers_whose_reservations_registered_them_meanwhile(
    servers: list[Server], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A customer that another transaction has registered, which raises no epoch, is not registered twice."""
    server, prepare = servers[0], CommitTransactions.prepare
    limits = Limits(caller)

    async def register_after(self: CommitTransactions, database: Database, group: CommitGroup) -> Prepared:
        found = await prepare(self, database, group)
        await limits.call("ReserveUsage", reservationId="r", usage=usage("1", "c0"))
        return found

    monkeypatch.setattr(CommitTransactions, "prepare", register_after)
    await server.send(*server.events(["c0"]))
    assert server.monitoring.placed[NODE_COULD_NOT,] == 1
    assert await caller.rows(_OF_CUSTOMERS.format("customer")) == [(1, 1)]
    await _assert_exact(caller)


async def test_epoch_that_all_nodes_show_is_known_before_the_first_usage(servers: list[Server]) -> None:
    for server in servers:
        organization_id = server.organization.organization_id
        async with server.database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
        assert server.nodes.shown_epoch(organization_id) == epoch


async def test_raw_events_are_committed_at_their_node(servers: list[Server], caller: Caller) -> None:
    server = servers[0]

    def raw() -> list[UsageEvent]:
        return [one._replace(metric_id="", event_name="call") for one in server.events(_CUSTOMERS)]

    await server.send(*raw())
    placed = server.monitoring.placed.copy()
    assert (await server.send(*raw())).accepted == len(_CUSTOMERS)
    assert set(server.monitoring.placed - placed) == {(AT_NODE,)}


async def test_new_customer_below_another_is_exact(servers: list[Server], caller: Caller) -> None:
    server = servers[0]
    await caller.put_customer(customer_pb2.Customer(customer_id="c1", parent_customer_id="c0"))
    await server.send(*server.events(_CUSTOMERS))
    await server.send(*server.events(_CUSTOMERS))
    await _assert_exact(caller)
