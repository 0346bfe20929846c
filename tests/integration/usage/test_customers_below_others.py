"""Customers below others: what a process knows of those above a customer, and what a move does to its alerts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from engine.rules.loading import is_known
from engine.rules.organization_rules import OrganizationRules
from engine.rules.registry import RulesRegistry
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from evaluator.routing import Router
from generated.tidemark.v1 import (
    account_service_pb2,
    customer_pb2,
    limit_pb2,
    limit_window_pb2,
    metric_pb2,
    subscription_pb2,
)
from runtime.clock import ManualClock
from store.identity import organizations
from store.postgres.database import Database
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, beside, usage_alert
from tests.support.usage.percentages import notified, percent, put_limit

pytestmark = shares_server

HARD, SOFT = limit_pb2.LIMIT_ENFORCEMENT_HARD, limit_pb2.LIMIT_ENFORCEMENT_SOFT
HOURLY = limit_window_pb2.LimitWindow(
    calendar=limit_window_pb2.CalendarWindow(unit=limit_window_pb2.CALENDAR_UNIT_HOUR)
)


async def put(caller: Caller, customer_id: str, parent: str = "", plan: str = "") -> None:
    """Puts a customer below another one."""
    await caller.put_customer(customer_pb2.Customer(customer_id=customer_id, parent_customer_id=parent, plan_id=plan))


async def enforce(
    caller: Caller, customer: str = "", *, plan: str = "", amount: str = "5", limit_id: str = "", **fields: Any
) -> None:
    """Puts a limit of calls, hard unless the fields say otherwise."""
    limit = limit_pb2.Limit(
        **{"limit_id": limit_id or f"enforced {customer or plan}", "amount": amount, "enforcement": HARD, **fields}
    )
    limit.quantity.metric_id = "calls"
    if plan:
        limit.plan.plan_id = plan
    else:
        limit.customer.customer_id = customer
    await caller.accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), metadata=caller.metadata)


@dataclass
class Process:
    """Another process with rules of its own, which commits events."""

    database: Database
    rules: OrganizationRules
    organization_id: int
    clock: ManualClock

    async def commit(self, customer: str, subscription: str | None = None) -> Router:
        """Loads what an event of a customer needs; returns the router."""
        event = UsageEvent("e", customer, self.clock.now(), "calls", ZERO, subscription, None, None, {})
        async with self.database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, self.organization_id)
            router = await self.rules.router(connection, epoch)
            registered = self.rules.begin()
            await self.rules.load_facts(connection, router, [event], self.clock.now(), registered)
        self.rules.committed(registered)
        assert is_known(router, [event])
        return router

    async def chain(self, customer: str) -> list[str]:
        """The customer and those above it, as the process knows them."""
        return [one.customer_id for one in (await self.commit(customer)).chain(customer)]

    async def covered(self, customer: str, subscription: str | None = None) -> bool:
        """Whether enforced limits cover a customer, as the process knows it."""
        return (await self.commit(customer, subscription)).is_covered(customer)


@pytest.fixture
async def process(caller: Caller, clock: ManualClock) -> AsyncIterator[Process]:
    """A process that has committed nothing yet. The metric exists."""
    await caller.put_metric("calls", metric_pb2.AGGREGATION_SUM)
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    yield Process(database, RulesRegistry().of(organization_id), organization_id, clock)
    await database.close()


async def test_a_process_knows_all_above_a_customer_and_follows_their_changes(
    caller: Caller, process: Process
) -> None:
    for parent, name in (("", "a"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")):
        await put(caller, name, parent)
    assert await process.chain("e") == ["e", "d", "c", "b", "a"]
    await put(caller, "other")
    await put(caller, "c", "other")
    assert await process.chain("e") == ["e", "d", "c", "other"]
    assert await process.chain("b") == ["b", "a"]
    await put(caller, "c")
    assert await process.chain("e") == ["e", "d", "c"]


async def test_an_enforced_limit_of_a_customer_covers_those_below_it(caller: Caller, process: Process) -> None:
    for parent, name in (("", "org"), ("org", "team"), ("team", "key"), ("", "alone")):
        await put(caller, name, parent)
    names = ("org", "team", "key", "alone")

    async def covered() -> list[bool]:
        return [await process.covered(name) for name in names]

    assert await covered() == [False] * 4
    await put_limit(caller, "5", customer="org")
    assert await covered() == [False] * 4
    await enforce(caller, "team")
    assert await covered() == [False, True, True, False]
    await enforce(caller, "team", enforcement=limit_pb2.LIMIT_ENFORCEMENT_NONE)
    assert await covered() == [False] * 4
    await enforce(caller, "org", limit_id="hourly", enforcement=SOFT, window=HOURLY)
    assert await covered() == [True, True, True, False]
    await put(caller, "team")
    assert await covered() == [True, False, False, False]
    await put(caller, "alone", "org")
    assert await covered() == [True, False, False, True]
    request = account_service_pb2.DeleteLimitRequest(limit_id="hourly")
    await caller.accounts.DeleteLimit(request, metadata=caller.metadata)
    assert await covered() == [False] * 4


async def test_an_enforced_limit_of_a_plan_covers_its_customers_and_those_below(
    caller: Caller, process: Process
) -> None:
    await put(caller, "org", plan="gold")
    await put(caller, "team", "org")
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="alone", subscription_id="pro", plan_id="gold")
    )
    assert not await process.covered("team")
    assert not await process.covered("alone", "pro")
    await enforce(caller, plan="gold")
    assert await process.covered("team")
    assert await process.covered("alone", "pro")
    await put(caller, "org", plan="silver")
    assert not await process.covered("team")
    await enforce(caller, plan="silver", window=HOURLY, enforcement=SOFT)
    assert await process.covered("team")
    await enforce(caller, plan="gold", amount="")
    assert not await process.covered("alone", "pro")


async def test_a_small_commit_is_not_planned_while_one_above_has_to_be_read_again(
    caller: Caller, process: Process
) -> None:
    await put(caller, "org")
    await put(caller, "team", "org")
    router = await process.commit("team")
    event = UsageEvent("e", "team", process.clock.now(), "calls", ZERO, None, None, None, {})
    assert is_known(router, [event])
    router.known["org"].outdate()
    assert not is_known(router, [event])
    del router.known["org"]
    assert not is_known(router, [event])


async def test_two_servers_make_no_circle(caller: Caller) -> None:
    async with beside(caller) as other:
        for number in range(20):
            answers = await asyncio.gather(
                put(caller, f"a{number}", f"b{number}"),
                put(other, f"b{number}", f"a{number}"),
                return_exceptions=True,
            )
            refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
            assert [reason_of(error) for error in refused] == ["ERROR_REASON_PARENT_CYCLE"]


async def test_concurrent_moves_on_two_servers_leave_trees_of_five_levels(caller: Caller) -> None:
    names = [f"c{number}" for number in range(7)]
    async with beside(caller) as other:
        moves: list[Coroutine[Any, Any, None]] = []
        for step in range(1, 7):
            for number, name in enumerate(names):
                moves.append(put((caller, other)[number % 2], name, names[(number + step) % 7]))
        answers = await asyncio.gather(*moves, return_exceptions=True)
    reasons = {reason_of(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert reasons <= {"ERROR_REASON_PARENT_CYCLE", "ERROR_REASON_PARENT_TOO_DEEP"}
    assert not [one for one in answers if isinstance(one, Exception) and not isinstance(one, grpc.aio.AioRpcError)]
    rows = await caller.rows(
        "SELECT customer_id, parent_customer_id FROM customer WHERE organization_id = %(organization_id)s"
    )
    parents: dict[str, str | None] = dict(rows)
    for name in names:
        levels, above = 1, parents[name]
        while above is not None:
            levels, above = levels + 1, parents[above]
            assert levels <= 5


async def test_a_move_notifies_of_nothing_again(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10", "100"))
    await caller.send(caller.event("e1", "50"))
    assert await notified(caller, alert) == [("REACHED", "10")]
    await put(caller, "acme", "org")
    await caller.send(caller.event("e2", "1"))
    assert await notified(caller, alert) == [("REACHED", "10")]
    outcome = await caller.send(caller.event("e3", "60"), gauges=True)
    assert [one.value for one in outcome.gauges] == ["111"]
    assert await notified(caller, alert) == [("REACHED", "10"), ("REACHED", "100")]
    # Usage of a customer does not count for alerts on the one above it.
    assert await notified(caller, alert, "org") == []


@pytest.mark.parametrize("holder", [{"customer": "acme"}, {"plan": "gold"}])
async def test_percentages_refer_to_the_limit_of_the_billing_period_only(
    caller: Caller, holder: dict[str, str]
) -> None:
    await put(caller, "acme", plan="gold")
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    await enforce(caller, **holder, limit_id="hourly", window=HOURLY)
    await caller.send(caller.event("e1", "50"))
    assert await notified(caller, alert) == []
    await enforce(caller, **holder, limit_id="period", amount="1000")
    await caller.send(caller.event("e2", "50"))
    assert await notified(caller, alert) == []
    await enforce(caller, **holder, limit_id="hourly", window=HOURLY, amount="1")
    await enforce(caller, **holder, limit_id="period", amount="100")
    await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert) == [("REACHED", "80")]
    # Another enforcement changes no level.
    await enforce(caller, **holder, limit_id="period", amount="100", enforcement=SOFT)
    await caller.backfilled(alert.alert_id)
    await caller.send(caller.event("e3", "1"))
    assert await notified(caller, alert) == [("REACHED", "80")]


async def test_a_limit_of_another_window_leaves_nothing_to_evaluate(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=percent("80")))
    await caller.send(caller.event("e1", "50"))

    async def evaluated() -> list[Any]:
        return await caller.rows(
            "SELECT gauge_id, rules_epoch FROM gauge WHERE organization_id = %(organization_id)s ORDER BY 1"
        )

    before = await evaluated()
    await enforce(caller, "acme", window=HOURLY)
    assert await evaluated() == before
    assert await caller.rows("SELECT 1 FROM customer_evaluation WHERE organization_id = %(organization_id)s") == []
