"""A change of a customer is evaluated after its commit: by the call, or by any server if the process has ended."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest

from engine.backfill.parts import Part, evaluate_part
from engine.limits import EngineLimits, EvaluationLimits
from engine.puts import noted_customers
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    condition_pb2,
    customer_pb2,
    limit_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.accounts.customer_evaluations import OWN_TIME
from store.postgres.retries import repeated
from tests.support.balances.holder import Holder, alert
from tests.support.postgres.only_one_server import quiet_puts
from tests.support.server.running import reason_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    BOTH,
    Caller,
    ShortTransition,
    beside,
    calling,
    on_customer,
    on_plan,
    shortened,
    until,
    usage_alert,
)
from tests.support.usage.changed_customers import GOLD, evaluated, on_gold, unevaluated
from tests.support.usage.failed_evaluations import operator_events
from tests.support.usage.held_evaluations import NOTED, evaluations_held, ids
from tests.support.usage.organizations import organization
from tests.support.usage.refusing import refusing

pytestmark = shares_server

DAY = timedelta(days=1)
FEW_GAUGES = EngineLimits(evaluations=EvaluationLimits(gauges_at_once=3))


def limit_of(customer: str, amount: str, name: str = "limit") -> account_service_pb2.PutLimitRequest:
    """A put of a limit on the calls of a customer."""
    limit = limit_pb2.Limit(
        limit_id=name,
        customer=scope_pb2.CustomerScope(customer_id=customer),
        quantity=access_pb2.QuantityAccess(metric_id="calls"),
        amount=amount,
    )
    return account_service_pb2.PutLimitRequest(limit=limit)


@own_server
async def test_change_whose_process_ended_is_evaluated_by_another_server(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("10", scope=GOLD))
    await caller.send(caller.event("e1", "15"))
    await unevaluated(caller, clock, "acme")
    async with beside(caller):
        await evaluated(caller)
    [notification] = await caller.notifications()
    assert notification.transitions == [ShortTransition("REACHED", "10", "15", "15", "")]
    answer = await caller.send(caller.event("e2", "1"))
    assert not answer.transitions


@own_server
async def test_customers_that_wait_are_evaluated_once_by_two_servers(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("10", scope=GOLD))
    own = [
        await caller.create(usage_alert("5", metric="other", scope=on_customer(f"c{number}"))) for number in (1, 2)
    ]
    names = [f"c{number:02}" for number in range(20)] + ["c1", "c2"]
    for name in names:
        await caller.send(caller.event("e1", "15", name), caller.event("e2", "4", name, metric="other"))
    await unevaluated(caller, clock, *names)
    async with beside(caller) as one, beside(caller) as two:
        await asyncio.gather(one.put_customer(on_gold("c01")), two.put_customer(on_gold("c02")))
        await evaluated(caller)
    notified = [(one.customer_id, one.sequence) for one in await caller.notifications()]
    assert notified == [(name, 1) for name in sorted(names)]
    for alert_of_one in own:
        state = await caller.state(alert_of_one.alert_id, alert_of_one.scope.customer.customer_id)
        assert [shown.gauge.value for shown in state.gauges] == ["4"]


@own_server
async def test_event_between_a_change_and_its_evaluation_notifies_alone(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert(scope=GOLD, thresholds=[threshold_pb2.Threshold(value="10", notify_on=BOTH)]))
    await caller.send(caller.event("e1", "8"))
    await unevaluated(caller, clock, "acme")
    with evaluations_held():
        answer = await caller.send(caller.event("e2", "4"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "8", "12", "e2")]
    async with beside(caller):
        await evaluated(caller)
    assert [one.event_type for one in await caller.notifications()] == ["alert.reached"]


@own_server
async def test_alert_created_between_a_change_and_its_evaluation_notifies_once(
    caller: Caller, clock: ManualClock
) -> None:
    await caller.create(usage_alert("10", scope=GOLD))
    await caller.send(caller.event("e1", "15"))
    await unevaluated(caller, clock, "acme")
    with evaluations_held():
        created = await caller.create(usage_alert("12", scope=GOLD))
    async with beside(caller):
        await evaluated(caller)
    notified = sorted((one.alert_id == created.alert_id, one.sequence) for one in await caller.notifications())
    assert notified == [(False, 1), (True, 1)]


@own_server
async def test_further_change_before_the_evaluation_counts_for_it(caller: Caller, clock: ManualClock) -> None:
    """The customer has left the plan again, so its alert notifies nothing, and the one of the new plan does."""
    await caller.create(usage_alert("10", scope=GOLD))
    silver = await caller.create(usage_alert("10", scope=on_plan("silver")))
    await caller.send(caller.event("e1", "15"))
    await unevaluated(caller, clock, "acme")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="silver"))
    assert [one.alert_id for one in await caller.notifications()] == [silver.alert_id]
    assert not await caller.rows(NOTED)


@own_server
async def test_repeated_put_evaluates_what_the_first_one_left(caller: Caller, clock: ManualClock) -> None:
    await caller.create(usage_alert("10", scope=GOLD))
    await caller.send(caller.event("e1", "15"))
    await unevaluated(caller, clock, "acme")
    await caller.put_customer(on_gold())
    assert len(await caller.notifications()) == 1
    assert not await caller.rows(NOTED)


@own_server
async def test_new_customer_that_waits_has_its_alerts_on_facts_evaluated_as_of_the_change(
    caller: Caller, clock: ManualClock
) -> None:
    """The days left were 8 at the change, and 7 before the evaluation: that time notifies, with its own time."""
    await caller.create(
        alert("7", low_remaining_days_in_plan_reached=condition_pb2.LowRemainingDaysInPlanReachedCondition())
    )
    begin = clock.now()
    with evaluations_held():
        await caller.put_customer(on_gold(plan_end_time=to_timestamp(begin + 8 * DAY)))
    clock.set(begin + 2 * DAY)
    async with beside(caller):
        await evaluated(caller)
    [notification] = await caller.notifications()
    assert notification.transitions == [ShortTransition("REACHED", "7", "8", "7", "")]
    [transition] = notification.body["data"]["transitions"]
    assert datetime.fromisoformat(transition["event_time"]) == begin + DAY


@own_server
async def test_balance_after_a_change_is_evaluated_after_it(caller: Caller, clock: ManualClock) -> None:
    """The alert covers the customer since the change. It sees the balance of then, and afterwards the new one."""
    condition = condition_pb2.LowRemainingDaysInPlanReachedCondition()
    await caller.create(alert("7", scope=GOLD, low_remaining_days_in_plan_reached=condition))
    with evaluations_held():
        await caller.put_customer(on_gold(plan_end_time=to_timestamp(clock.now() + 3 * DAY)))
    await Holder(caller).put("c1", "5")
    [notification] = await caller.notifications()
    assert notification.transitions == [ShortTransition("REACHED", "7", "3", "3", "")]


@own_server
async def test_customer_that_fails_waits_and_others_are_evaluated(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unless_bad(*arguments: Any, **options: Any) -> Part:
        if "bad" in arguments[3]:
            raise RuntimeError("it cannot be evaluated")
        return await evaluate_part(*arguments, **options)

    async def only_the_bad_one() -> bool:
        return ids(await caller.rows(NOTED)) == ["bad"]

    names = ["a", "bad", "c"]
    other = await organization(caller.database_url, clock)
    async with calling(caller.database_url, clock, *other) as neighbour:
        for one, customers in ((caller, names), (neighbour, ["acme"])):
            await one.create(usage_alert("10", scope=GOLD))
            for name in customers:
                await one.send(one.event("e1", "15", name))
        with monkeypatch.context() as broken:
            broken.setattr(noted_customers, "evaluate_part", unless_bad)
            with evaluations_held():
                for name in names:
                    await caller.put_customer(on_gold(name))
                await neighbour.put_customer(on_gold())
                clock.set(clock.now() + OWN_TIME)
            async with beside(caller):
                await evaluated(neighbour)
                await until(only_the_bad_one)
        assert [one.customer_id for one in await neighbour.notifications()] == ["acme"]
    assert [one.customer_id for one in await caller.notifications()] == ["a", "c"]
    clock.set(clock.now() + noted_customers.PUT_OFF)
    async with beside(caller):
        await evaluated(caller)
    assert [one.customer_id for one in await caller.notifications()] == names


async def test_failed_evaluation_after_a_put_writes_an_operator_event_of_its_alert_and_customer(
    caller: Caller, clock: ManualClock
) -> None:
    """One in an hour, however often the evaluation is tried again; its neighbour gets none."""
    created = await caller.create(usage_alert("10", scope=GOLD))
    neighbour_key = await organization(caller.database_url, clock)
    async with calling(caller.database_url, clock, *neighbour_key) as neighbour:
        await neighbour.create(usage_alert("10", scope=GOLD))
        for one in (caller, neighbour):
            await one.send(one.event("e1", "15"))
        async with refusing(caller, "notification", f"alert_id = '{created.alert_id}'"):
            for plan in ("gold", "silver", "gold"):
                await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id=plan))
                await neighbour.put_customer(on_gold())
            assert ids(await caller.rows(NOTED)) == ["acme"]
        [event] = await operator_events(caller)
        assert event["data"] == {"alert_id": created.alert_id, "customer_id": "acme"}
        assert await operator_events(neighbour) == []
        assert [one.customer_id for one in await neighbour.notifications()] == ["acme"]
    await caller.put_customer(on_gold())
    assert [one.alert_id for one in await caller.notifications()] == [created.alert_id]
    assert not await caller.rows(NOTED)


@own_server
async def test_alert_that_is_archived_during_an_evaluation_hides_no_like_alert(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation has chosen one of two alerts on the same gauge, for both, when that alert is archived."""
    await caller.create(usage_alert("10", metric="other", scope=GOLD))
    chosen = await caller.create(usage_alert("10", scope=GOLD))
    like = await caller.create(usage_alert("12", scope=GOLD))
    await caller.send(caller.event("e1", "15"))
    steps = 0

    async def archiving(step: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal steps
        steps += 1
        if steps == 2:
            await caller.archive(chosen.alert_id)
        return await repeated(step)

    monkeypatch.setattr(noted_customers, "repeated", archiving)
    await caller.put_customer(on_gold())
    assert [one.alert_id for one in await caller.notifications()] == [like.alert_id]
    assert not await caller.rows(NOTED)


@own_server
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("engine_limits", [FEW_GAUGES], ids=[pytest.HIDDEN_PARAM])
async def test_customers_with_many_gauges_are_evaluated_in_parts(
    caller: Caller, clock: ManualClock, several: bool
) -> None:
    """Each gauge once, also if the customers have several alerts on usage."""
    await caller.create(usage_alert("10", scope=GOLD, groups=[("seat", None)]))
    if several:
        await caller.create(usage_alert("1000", scope=GOLD))
    customers, seats = ["a", "acme", "b"], [f"s{number}" for number in range(8)]
    for name in customers:
        await caller.send(*(caller.event(seat, "15", name, seat=seat) for seat in seats))
    await unevaluated(caller, clock, *customers)
    async with beside(caller, engine_limits=FEW_GAUGES):
        await evaluated(caller)
    assert [one.customer_id for one in await caller.notifications()] == [name for name in customers for _ in seats]
    await caller.put_customer(on_gold("c"))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme"))
    await caller.put_customer(on_gold())
    assert len(await caller.notifications()) == len(customers) * len(seats)
    assert not await caller.rows(NOTED)


@own_server
async def test_customer_that_was_erased_before_its_evaluation_leaves_nothing(
    caller: Caller, clock: ManualClock
) -> None:
    await caller.create(usage_alert("10", scope=GOLD))
    await caller.send(caller.event("e1", "15"))
    await unevaluated(caller, clock, "acme")
    with evaluations_held():
        request = account_service_pb2.DeleteCustomerRequest(customer_id="acme")
        await caller.accounts.DeleteCustomer(request, metadata=caller.metadata)

        async def gone() -> bool:
            found = await caller.rows("SELECT 1 FROM customer WHERE organization_id = %(organization_id)s")
            return not found

        await until(gone)
    assert not await caller.rows(NOTED)
    assert await caller.notifications() == []


async def test_limit_of_a_customer_is_evaluated_when_the_put_and_the_deletion_return(caller: Caller) -> None:
    percent = threshold_pb2.Threshold(percent_of_limit="80", notify_on=BOTH)
    await caller.create(usage_alert(thresholds=[percent]))
    await caller.send(caller.event("e1", "90"), caller.event("e1", "90", "other"))
    await caller.accounts.PutLimit(limit_of("acme", "100"), metadata=caller.metadata)
    assert [(one.customer_id, one.event_type) for one in await caller.notifications()] == [("acme", "alert.reached")]
    await caller.accounts.PutLimit(limit_of("acme", "200"), metadata=caller.metadata)
    assert [one.event_type for one in await caller.notifications()] == ["alert.reached", "alert.resolved"]
    await caller.accounts.PutLimit(limit_of("acme", "100"), metadata=caller.metadata)
    deletion = account_service_pb2.DeleteLimitRequest(limit_id="limit")
    await caller.accounts.DeleteLimit(deletion, metadata=caller.metadata)
    assert len(await caller.notifications()) == 4
    assert not await caller.rows(NOTED)


@quiet_puts
async def test_put_that_changes_nothing_that_routers_read_takes_no_new_epoch(caller: Caller) -> None:
    epoch = "SELECT epoch FROM organization WHERE organization_id = %(organization_id)s"
    subscription = subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    await caller.put_customer(on_gold())
    await caller.put_subscription(subscription)
    before = await caller.rows(epoch)
    await caller.put_customer(on_gold(display_name="Acme", custom_fields={"owner": "Ann"}))
    subscription.display_name = "Pro"
    await caller.put_subscription(subscription)
    assert await caller.rows(epoch) == before
    request = account_service_pb2.GetCustomerRequest(customer_id="acme")
    got = await caller.accounts.GetCustomer(request, metadata=caller.metadata)
    assert (got.customer.display_name, dict(got.customer.custom_fields)) == ("Acme", {"owner": "Ann"})


async def test_concurrent_puts_that_take_one_name_refuse_all_but_one(caller: Caller) -> None:
    """Puts that share a transaction with refused ones are stored."""

    async def put(number: int) -> str | None:
        aliases = ["shared"] if number % 2 else []
        try:
            await caller.put_customer(on_gold(f"c{number}", aliases=aliases))
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return None

    answers = await asyncio.gather(*(put(number) for number in range(20)))
    assert [answers[number] for number in range(0, 20, 2)] == [None] * 10
    refused = [answers[number] for number in range(1, 20, 2)]
    assert refused.count(None) == 1
    [[stored]] = await caller.rows("SELECT count(*) FROM customer WHERE organization_id = %(organization_id)s")
    assert stored == 11


async def test_concurrent_limits_of_one_subject_refuse_all_but_one(caller: Caller) -> None:
    async def put(name: str, customer: str) -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await caller.accounts.PutLimit(limit_of(customer, "10", name), metadata=caller.metadata)
            return True
        return False

    puts = [put(f"same {number}", "acme") for number in range(6)] + [
        put(f"own {number}", f"c{number}") for number in range(6)
    ]
    stored = await asyncio.gather(*puts)
    assert stored[:6].count(True) == 1
    assert stored[6:] == [True] * 6
