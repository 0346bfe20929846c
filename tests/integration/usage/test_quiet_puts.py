"""Puts on which no alert has anything to report: the put itself brings the customer's gauges up to date.

Evaluations of changed customers are held back, so that only the put can have evaluated a gauge. A customer that has
to be evaluated has a note.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from engine.changes.groups import ChangeGroups
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    billing_period_pb2,
    customer_pb2,
    limit_pb2,
    metric_pb2,
    scope_pb2,
    threshold_pb2,
)
from tests.support.postgres.only_one_server import quiet_puts
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    DEADLINE,
    Caller,
    ShortTransition,
    beside,
    ingest_held,
    on_customer,
    on_plan,
    shortened,
    until,
    usage_alert,
    waiting_for_locks,
)
from tests.support.usage.held_evaluations import NOTED, evaluations_held, ids
from tests.support.usage.percentages import percent, put_customer, put_limit

REACHED = [ShortTransition("REACHED", "80", "7", "80", "e2")]


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """Another server of the same organization."""
    async with beside(caller) as second:
        yield second


async def watched(caller: Caller, *alerts: alert_pb2.Alert, scope: scope_pb2.AlertScope = ALL_CUSTOMERS) -> None:
    """An alert out of reach, and others, which watch usage of 7."""
    for alert in (usage_alert("1000", scope=scope), *alerts):
        await caller.create(alert)
    await caller.send(caller.event("e1", "7"))


async def noted(caller: Caller) -> list[object]:
    return ids(await caller.rows(NOTED))


async def evaluated(caller: Caller, customer: str = "acme") -> None:
    """Evaluates a customer as the next process does."""
    await caller.put_customer(customer_pb2.Customer(customer_id=customer, display_name="evaluated"))


async def notified(caller: Caller) -> list[list[ShortTransition]]:
    return [one.transitions for one in await caller.evaluations()]


@quiet_puts
async def test_limit_far_above_usage_needs_no_evaluation_and_its_share_is_notified_when_usage_reaches_it(
    caller: Caller,
) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    with evaluations_held():
        await put_limit(caller, "100")
    assert await noted(caller) == []
    answer = await caller.send(caller.event("e2", "73"))
    assert shortened(answer.transitions) == REACHED


@quiet_puts
async def test_higher_limit_moves_the_level_at_which_usage_is_evaluated(caller: Caller) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    with evaluations_held():
        for amount in ("50", "100", "", "200", "100"):
            await put_limit(caller, amount)
            assert await noted(caller) == []
        [[level, below]] = await caller.rows(
            "SELECT trip_above, trip_below FROM gauge WHERE organization_id = %(organization_id)s"
        )
    assert (level, below) == (80, None)
    answer = await caller.send(caller.event("e2", "73"))
    assert shortened(answer.transitions) == REACHED


@pytest.mark.parametrize("amount", ["8", "7", "1"])
async def test_limit_whose_share_is_reached_is_evaluated(caller: Caller, amount: str) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    with evaluations_held():
        await put_limit(caller, amount)
    assert await noted(caller) == ["acme"]
    await put_limit(caller, amount)
    [[reached]] = await notified(caller)
    assert (reached.kind, reached.value) == ("REACHED", "7")


async def test_limit_that_resolves_a_share_is_evaluated(caller: Caller) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    await put_limit(caller, "5")
    with evaluations_held():
        await put_limit(caller, "100")
    assert await noted(caller) == ["acme"]
    await put_limit(caller, "100")
    assert [one[0].kind for one in await notified(caller)] == ["REACHED", "RESOLVED"]


@quiet_puts
async def test_limit_of_a_customer_with_an_alert_of_its_own_needs_no_evaluation(caller: Caller) -> None:
    levels = [threshold_pb2.Threshold(value="60"), *percent("80")]
    own = usage_alert(thresholds=levels, scope=on_customer("acme"))
    await watched(caller, own)
    with evaluations_held():
        await put_limit(caller, "100")
    assert await noted(caller) == []
    answer = await caller.send(caller.event("e2", "73"))
    assert REACHED[0] in shortened(answer.transitions)


async def test_limit_that_several_gauges_of_the_customer_share_is_evaluated(caller: Caller) -> None:
    await watched(caller, usage_alert(thresholds=percent("80"), groups=[("region", None)]))
    await caller.send(caller.event("e2", "1", region="eu"))
    with evaluations_held():
        await put_limit(caller, "100", groups=[("region", None)])
    assert await noted(caller) == ["acme"]


@quiet_puts
async def test_other_plan_needs_no_evaluation_and_its_alerts_are_notified_when_usage_reaches_them(
    caller: Caller,
) -> None:
    await watched(caller, usage_alert("80", scope=on_plan("gold")))
    with evaluations_held():
        await put_customer(caller, "acme", "gold")
    assert await noted(caller) == []
    answer = await caller.send(caller.event("e2", "73"))
    assert shortened(answer.transitions) == REACHED


@pytest.mark.parametrize("level", ["7", "1"])
async def test_other_plan_with_an_alert_that_usage_has_reached_is_evaluated(caller: Caller, level: str) -> None:
    await watched(caller, usage_alert(level, scope=on_plan("gold")))
    with evaluations_held():
        await put_customer(caller, "acme", "gold")
    assert await noted(caller) == ["acme"]
    await evaluated(caller)
    assert await notified(caller) == []  # another plan meanwhile
    await put_customer(caller, "acme", "gold")
    assert await notified(caller) == [[ShortTransition("REACHED", level, "7", "7", "")]]


@quiet_puts
async def test_other_plan_with_a_lower_limit_is_evaluated(caller: Caller) -> None:
    await put_limit(caller, "8", plan="gold")
    await put_limit(caller, "100", plan="silver")
    await watched(caller, usage_alert(thresholds=percent("80")))
    with evaluations_held():
        await put_customer(caller, "acme", "silver")
        assert await noted(caller) == []
        await put_customer(caller, "acme", "gold")
    assert await noted(caller) == ["acme"]


async def test_plan_of_a_customer_that_nothing_watched_is_evaluated(caller: Caller) -> None:
    await caller.create(usage_alert("5", scope=on_plan("gold")))
    await caller.send(caller.event("e1", "7"))
    await put_customer(caller, "acme", "gold")
    assert await notified(caller) == [[ShortTransition("REACHED", "5", "7", "7", "")]]


@quiet_puts
async def test_new_customer_without_alerts_on_facts_needs_no_evaluation(caller: Caller) -> None:
    await watched(caller)
    with evaluations_held():
        await put_customer(caller, "beta", "gold")
        await put_customer(caller, "beta", "silver")  # without usage
    assert await noted(caller) == []
    await caller.create(usage_alert("3", scope=on_plan("silver")))
    answer = await caller.send(caller.event("e2", "3", "beta"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "3", "0", "3", "e2")]


async def test_billing_cycle_is_evaluated(caller: Caller) -> None:
    await watched(caller)
    changed = customer_pb2.Customer(customer_id="acme")
    changed.billing_cycle.cadence = billing_period_pb2.CADENCE_DAY
    changed.billing_cycle.anchor_time.FromDatetime(caller.clock.now())
    with evaluations_held():
        await caller.put_customer(changed)
    assert await noted(caller) == ["acme"]


@pytest.mark.parametrize("scope", ["all", "plan", "own"])
async def test_put_does_not_hide_that_an_alert_of_another_server_is_reached(
    caller: Caller, other: Caller, scope: str
) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    await put_customer(caller, "acme", "gold")
    chosen = {"all": ALL_CUSTOMERS, "plan": on_plan("gold"), "own": on_customer("acme")}[scope]
    with evaluations_held():
        await other.create_only(usage_alert("5", scope=chosen))
        await put_limit(caller, "100")
        await put_limit(caller, "200")
        await caller.send(caller.event("e2", "1"))
    assert [ShortTransition("REACHED", "5", "7", "7", "")] in await notified(caller)


async def test_put_does_not_hide_a_limit_of_the_plan_from_another_server(caller: Caller, other: Caller) -> None:
    await put_customer(caller, "acme", "gold")
    await watched(caller, usage_alert(thresholds=percent("80")))
    await put_limit(caller, "100", currency="USD")
    with evaluations_held():
        await put_limit(other, "8", plan="gold")
        await put_customer(caller, "acme", "silver")
        await put_customer(caller, "acme", "gold")
    assert await noted(caller) == ["acme"]


async def test_customer_for_which_an_alert_is_disabled_is_evaluated(caller: Caller) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    alert = await caller.create(usage_alert("90"))
    request = alert_service_pb2.DisableAlertRequest(alert_id=alert.alert_id, customer_id="acme")
    await caller.alerts.DisableAlert(request, metadata=caller.metadata, timeout=DEADLINE)
    with evaluations_held():
        await put_limit(caller, "100")
    assert await noted(caller) == ["acme"]


async def test_limit_on_a_metric_that_counts_raw_events_is_evaluated(caller: Caller) -> None:
    metric = metric_pb2.Metric(metric_id="calls", aggregation=metric_pb2.AGGREGATION_SUM, event_name="call")
    metric.quantity_property = "amount"
    request = account_service_pb2.PutMetricRequest(metric=metric)
    await caller.accounts.PutMetric(request, metadata=caller.metadata, timeout=DEADLINE)
    await watched(caller, usage_alert(thresholds=percent("80")))
    with evaluations_held():
        await put_limit(caller, "100")
    assert await noted(caller) == ["acme"]


class Asked:
    """Changes that calls have asked for."""

    def __init__(self) -> None:
        self.changes: list[object] = []

    async def number(self, wanted: int) -> None:
        """Waits until so many have come."""

        async def enough() -> bool:
            return len(self.changes) >= wanted

        await until(enough)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found, made = Asked(), ChangeGroups._made

    async def noting(*change: Any) -> Any:
        found.changes.append(change)
        return await made(*change)

    monkeypatch.setattr(ChangeGroups, "_made", noting)
    return found


async def in_one_transaction(
    caller: Caller,
    asked: Asked,
    *calls: Callable[[], Awaitable[object]],
    ahead_of_them: Awaitable[object] | None = None,
) -> None:
    """Makes calls whose changes share a transaction, in their order; `ahead_of_them` is in it, too."""
    if ahead_of_them is None:
        ahead_of_them = caller.create_only(usage_alert("1000", scope=on_customer("gamma")))
    async with ingest_held(caller):
        # The first change waits for the lock, and those behind it share the transaction after it.
        ahead = asyncio.ensure_future(ahead_of_them)
        await waiting_for_locks(caller)
        tasks: list[asyncio.Future[object]] = []
        for number, call in enumerate(calls, start=len(asked.changes) + 1):
            tasks.append(asyncio.ensure_future(call()))
            await asked.number(number)
    await asyncio.gather(ahead, *tasks)


async def test_puts_of_one_customer_in_one_transaction_hide_nothing_from_each_other(
    caller: Caller, asked: Asked
) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")), usage_alert("10", scope=on_plan("gold")))
    await in_one_transaction(
        caller,
        asked,
        lambda: put_customer(caller, "acme", "gold"),
        lambda: put_limit(caller, "50"),
        lambda: put_limit(caller, "9", currency="EUR"),
    )
    assert await noted(caller) == []
    answer = await caller.send(caller.event("e2", "33"))
    assert sorted(shortened(answer.transitions)) == [
        ShortTransition("REACHED", "10", "7", "40", "e2"),
        ShortTransition("REACHED", "40", "7", "40", "e2"),
    ]


@pytest.mark.parametrize("first", ["quiet", "other"])
async def test_quiet_put_does_not_hide_another_put_of_its_customer_in_the_same_statement(
    caller: Caller, asked: Asked, first: str
) -> None:
    # The second limit is shared by several gauges, so its put is never quiet.
    by_region = usage_alert(thresholds=percent("80"), groups=[("region", None)])
    await watched(caller, usage_alert(thresholds=[threshold_pb2.Threshold(value="500")]), by_region)
    await caller.send(caller.event("e2", "9", region="eu"))
    puts = [
        lambda: put_limit(caller, "1000", currency="EUR"),
        lambda: put_limit(caller, "10", groups=[("region", None)]),
    ]
    # No other kind of changes is in the transaction, so all three puts are in one statement.
    ahead = put_limit(caller, "1000", customer="gamma")
    await in_one_transaction(caller, asked, *(puts if first == "quiet" else reversed(puts)), ahead_of_them=ahead)
    assert await noted(caller) == []
    assert await notified(caller) == [[ShortTransition("REACHED", "8", "9", "9", "")]]


@pytest.mark.parametrize("first", ["put", "edit"])
async def test_put_does_not_hide_an_alert_that_is_edited_in_the_same_transaction(
    caller: Caller, asked: Asked, first: str
) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    alert = await caller.create(usage_alert("90"))
    edited = alert_pb2.Alert(alert_id=alert.alert_id, thresholds=[threshold_pb2.Threshold(value="6")])
    edit = alert_service_pb2.UpdateAlertRequest(alert=edited)
    edit.update_mask.paths.append("thresholds")

    async def update() -> None:
        await caller.alerts.UpdateAlert(edit, metadata=caller.metadata, timeout=DEADLINE)

    async def put() -> None:
        await put_limit(caller, "100")

    await in_one_transaction(caller, asked, *((put, update) if first == "put" else (update, put)))
    await caller.backfilled(alert.alert_id)
    assert await notified(caller) == [[ShortTransition("REACHED", "6", "7", "7", "")]]


async def test_validated_put_changes_no_gauge(caller: Caller) -> None:
    await watched(caller, usage_alert(thresholds=percent("80")))
    gauges = "SELECT gauge_id, rules_epoch, trip_above FROM gauge WHERE organization_id = %(organization_id)s"
    before = await caller.rows(gauges)
    limit = limit_pb2.Limit(limit_id="l", quantity=access_pb2.QuantityAccess(metric_id="calls"), amount="100")
    limit.customer.customer_id = "acme"
    request = account_service_pb2.PutLimitRequest(limit=limit, validate_only=True)
    await caller.accounts.PutLimit(request, metadata=caller.metadata, timeout=DEADLINE)
    assert await caller.rows(gauges) == before
    assert await noted(caller) == []
