"""Alerts that count what is held: reservations move their gauges, and those of other alerts stay as they are."""

import random
from collections.abc import Sequence
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from click import unstyle

from cli.explain.text import lines_of
from engine.enforcement.expiry import Expiry
from engine.enforcement.requests import Decided
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.events import SettlingEvent
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    explanation_pb2,
    filter_pb2,
    metric_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, Sender, put_limit, reserve, settle, usage_event
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.alerts import on_plan
from tests.support.usage.caller import ALL_CUSTOMERS, BOTH, DEADLINE, Caller, on_customer
from tests.support.usage.service import GRACE
from tests.support.usage.voiding import void

pytestmark = shares_server


def alert(*levels: str, counts_held: bool = True, groups: Sequence[str] = (), **fields: Any) -> alert_pb2.Alert:
    """On usage of calls, unless another condition is given."""
    if not any(name.endswith(("reached", "exceeded")) for name in fields):
        selectors = [filter_pb2.GroupSelector(key=key) for key in groups]
        fields["usage_threshold_reached"] = condition_pb2.UsageThresholdReachedCondition(
            metric_id="calls", group_values=selectors
        )
    fields.setdefault("scope", ALL_CUSTOMERS)
    return alert_pb2.Alert(
        display_name="calls",
        thresholds=[threshold_pb2.Threshold(value=level, notify_on=BOTH) for level in levels],
        counts_held=counts_held,
        **fields,
    )


def caused(answer: Decided) -> list[tuple[str, str, str, str | None]]:
    """The kind of each transition, its level, its value, and what caused it."""
    return [
        (
            one.transition.kind.value,
            str(one.transition.level),
            str(one.transition.value),
            one.transition.cause.event_id if one.transition.cause else None,
        )
        for one in answer.transitions
    ]


async def gauges(caller: Caller, alert_id: str, customer: str = "acme") -> dict[str, tuple[str, str]]:
    """Value and held of each gauge of an alert, by its groups."""
    state: customer_alert_pb2.CustomerAlert = await caller.state(alert_id, customer)
    return {
        "/".join(one.value for one in item.gauge.group): (item.gauge.value, item.gauge.held) for item in state.gauges
    }


async def explained(caller: Caller, alert_id: str) -> explanation_pb2.GaugeExplanation:
    """The only gauge of acme, explained."""
    request = alert_service_pb2.ExplainCustomerAlertRequest(alert_id=alert_id, customer_id="acme")
    answer = await caller.alerts.ExplainCustomerAlert(request, metadata=caller.metadata, timeout=DEADLINE)
    [found] = answer.explanation.gauges
    shown: explanation_pb2.GaugeExplanation = found
    return shown


async def test_a_reservation_reaches_a_threshold_and_its_release_resolves_it(
    caller: Caller, gateway: Gateway
) -> None:
    await put_limit(caller, "1000")
    counting = await caller.create(alert("100"))
    plain = await caller.create(alert("100", counts_held=False))
    await caller.send(caller.event("e1", "60"))
    assert caused(await gateway.reserve("r1", "30")) == []
    assert caused(await gateway.reserve("r2", "25")) == [("REACHED", "100", "115", "r2")]
    assert await gauges(caller, counting.alert_id) == {"": ("115", "55")}
    assert await gauges(caller, plain.alert_id) == {"": ("60", "55")}
    assert caused(await gateway.release("r1")) == [("RESOLVED", "100", "85", "r1")]
    # What was held becomes usage: the gauge that counts it stays where it was, and the other one reaches its level.
    assert caused(await gateway.settle("r2")) == []
    assert await gauges(caller, counting.alert_id) == {"": ("85", "0")}
    assert await gauges(caller, plain.alert_id) == {"": ("85", "0")}
    stored = [one for one in await caller.notifications() if one.customer_id == "acme"]
    assert len(stored) == 2


async def test_an_explanation_says_what_is_held_and_by_which_reservations(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1000")
    counting = await caller.create(alert("100"))
    plain = await caller.create(alert("100", counts_held=False))
    grouped = await caller.create(alert("100", groups=["region"]))
    await caller.send(caller.event("e1", "40"))
    await gateway.ask(reserve("small", "5"), reserve("large", "20", region="eu"), reserve("other", "7", metric="m"))
    shown = await explained(caller, counting.alert_id)
    assert (shown.gauge.value, shown.gauge.held, shown.hold_count) == ("65", "25", 2)
    assert [(one.reservation_id, one.amount) for one in shown.holds] == [("large", "20"), ("small", "5")]
    assert shown.holds[0].expire_time.ToDatetime(UTC) == caller.clock.now() + timedelta(seconds=60)
    assert "the next event or reservation of at least 35" in shown.summary
    assert "Of the value, 25 is held by 2 open reservations." in shown.summary
    shown = await explained(caller, plain.alert_id)
    assert (shown.gauge.value, shown.gauge.held) == ("40", "25")
    assert "Beside that, 25 is held by 2 open reservations: the alert does not count it" in shown.summary
    assert "the next event of at least 60" in shown.summary
    shown = await explained(caller, grouped.alert_id)
    assert [(one.reservation_id, one.amount) for one in shown.holds] == [("large", "20")]
    await gateway.ask(*[reserve(f"r{number:02}", "1") for number in range(12)])
    shown = await explained(caller, counting.alert_id)
    assert (shown.hold_count, len(shown.holds)) == (14, 10)
    lines = "\n".join(lines_of(explanation_pb2.CustomerAlertExplanation(gauges=[shown])))
    assert "large holds 20" in unstyle(lines)
    assert "and 4 more: tidemark reservations list acme" in lines
    await gateway.ask(*[settle(one) for one in ("small", "large")], *[settle(f"r{one:02}") for one in range(12)])
    shown = await explained(caller, counting.alert_id)
    assert (shown.gauge.held, shown.hold_count, "held" in shown.summary) == ("0", 0, False)


async def test_nothing_is_held_of_a_metric_that_is_not_additive(caller: Caller, gateway: Gateway) -> None:
    """`held` is "0" where nothing is held, and unset where nothing can be."""
    await caller.put_metric("level", metric_pb2.AGGREGATION_MAX)
    condition = condition_pb2.UsageThresholdReachedCondition(metric_id="level")
    of_level = await caller.create(alert("100", counts_held=False, usage_threshold_reached=condition))
    of_calls = await caller.create(alert("100", counts_held=False))
    await caller.send(caller.event("e1", "1"), caller.event("e2", "5", metric="level"))
    await gateway.reserve("r1", "3", metric="level")
    assert await gauges(caller, of_level.alert_id) == {"": ("5", "")}
    assert await gauges(caller, of_calls.alert_id) == {"": ("1", "0")}


async def test_a_settlement_is_one_step(caller: Caller, gateway: Gateway) -> None:
    """Nothing is reached or resolved between the end of the hold and its usage."""
    await put_limit(caller, "1000")
    counting = await caller.create(alert("50", "100"))
    await gateway.reserve("r1", "60")
    await gateway.reserve("r2", "30")
    answers = await gateway.ask(settle("r1", "45"), settle("r2", "60"))
    assert [caused(one) for one in answers] == [[], [("REACHED", "100", "105", "r2")]]
    assert await gauges(caller, counting.alert_id) == {"": ("105", "0")}
    assert len(await caller.notifications()) == 2


async def test_a_new_alert_counts_what_is_held_already(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1000")
    await caller.send(caller.event("e1", "10", region="eu"))
    await gateway.ask(reserve("r1", "30", region="eu"), reserve("r2", "40", region="us"), reserve("r3", "5"))
    whole = await caller.create(alert("80"))
    grouped = await caller.create(alert("40", groups=["region"]))
    own = await caller.create(alert("1000", scope=on_customer("acme")))
    assert await gauges(caller, whole.alert_id) == {"": ("85", "75")}
    assert await gauges(caller, own.alert_id) == {"": ("85", "75")}
    assert await gauges(caller, grouped.alert_id) == {"eu": ("40", "30"), "us": ("40", "40")}
    assert caused(await gateway.release("r2")) == [
        ("RESOLVED", "80", "45", "r2"),
        ("RESOLVED", "40", "0", "r2"),
    ]


async def test_the_first_move_of_an_unwatched_gauge_recounts_it(caller: Caller, gateway: Gateway) -> None:
    """Holds and ends of holds of the same commit count once."""
    await put_limit(caller, "1000")
    await caller.send(caller.event("e1", "10"))
    await gateway.ask(reserve("r1", "20"), reserve("r2", "30"))
    first = await caller.create(alert("1000"))
    await caller.archive(first.alert_id)
    await gateway.reserve("r3", "5")  # moves no gauge
    second = await caller.create_only(alert("1000"))
    await gateway.ask(settle("r1", "1"), reserve("r4", "7"), reserve("r5", "9"))
    await caller.backfilled(second.alert_id)
    assert await gauges(caller, second.alert_id) == {"": ("62", "51")}
    await gateway.ask(settle("r5"), settle("r3", "2"))
    assert await gauges(caller, second.alert_id) == {"": ("59", "37")}


async def test_spend_counts_costs_of_its_currency_and_prices(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1000", currency="USD")
    spend = condition_pb2.SpendThresholdReachedCondition(currency="USD")
    counting = await caller.create(alert("10", spend_threshold_reached=spend))
    euros = condition_pb2.SpendThresholdReachedCondition(currency="EUR")
    other = await caller.create(alert("10", spend_threshold_reached=euros))
    answer = await gateway.reserve("r1", "1", cost="12.50")
    assert caused(answer) == [("REACHED", "10", "12.50", "r1")]
    assert await gauges(caller, counting.alert_id) == {"": ("12.5", "12.5")}
    assert await gauges(caller, other.alert_id) == {}


async def test_an_edit_of_counts_held_evaluates_the_other_gauge(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1000")
    created = await caller.create(alert("50", counts_held=False))
    await caller.send(caller.event("e1", "40"))
    await gateway.reserve("r1", "20")

    async def update(counts_held: bool) -> None:
        request = alert_service_pb2.UpdateAlertRequest(
            alert=alert_pb2.Alert(alert_id=created.alert_id, counts_held=counts_held)
        )
        request.update_mask.paths.append("counts_held")
        answer = await caller.alerts.UpdateAlert(request, metadata=caller.metadata, timeout=DEADLINE)
        assert answer.alert.counts_held == counts_held
        await caller.backfilled(created.alert_id)

    await update(counts_held=True)
    assert await gauges(caller, created.alert_id) == {"": ("60", "20")}
    await update(counts_held=False)
    assert await gauges(caller, created.alert_id) == {"": ("40", "20")}


async def test_a_voided_event_leaves_what_is_held(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1000")
    counting = await caller.create(alert("50"))
    await caller.send(caller.event("e1", "40"))
    await gateway.reserve("r1", "20")
    await void(caller, "e1")
    assert await gauges(caller, counting.alert_id) == {"": ("20", "20")}


@pytest.mark.parametrize(
    "condition",
    [
        {"low_remaining_commit_balance_reached": condition_pb2.LowRemainingCommitBalanceReachedCondition()},
        {"invoice_total_reached": condition_pb2.InvoiceTotalReachedCondition(currency="USD")},
    ],
    ids=lambda condition: next(iter(condition)),
)
async def test_only_usage_and_spend_count_what_is_held(caller: Caller, condition: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.create(alert("10", **condition))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "alert.counts_held" in (refused.value.details() or "")


async def test_a_notification_says_that_its_gauge_counts_what_is_held(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "1000")
    await caller.create(alert("10"))
    await gateway.reserve("r1", "20")
    [notified] = await caller.notifications()
    assert notified.body["data"]["gauge"]["counts_held"] is True
    assert [one.event_id for one in notified.transitions] == ["r1"]


@own_server
async def test_an_expiry_resolves_what_a_reservation_reached(
    caller: Caller, gateway: Gateway, clock: ManualClock, own_pool: Database
) -> None:
    """Also of a subscription, whose gauge has a period of its own."""
    await put_limit(caller, "1000")
    request = condition_pb2.UsageExceededCondition(metric_id="calls")
    counting = await caller.create(alert("10", usage_exceeded=request, scope=on_plan("pro")))
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="acme-pro", plan_id="pro")
    )
    answer = await gateway.reserve("r1", "20", subscription="acme-pro", seconds=10)
    assert caused(answer) == [("REACHED", "10", "20", "r1")]
    await gateway.reserve("r2", "3", subscription="acme-pro", seconds=60)
    clock.advance(timedelta(seconds=16))
    rules = RulesRegistry()
    await Expiry(own_pool, clock, Transactions(own_pool, clock, GRACE, rules)).sweep()
    assert await gauges(caller, counting.alert_id) == {"": ("3", "3")}
    _, resolved = await caller.notifications()
    assert [(one.kind, one.value, one.event_id) for one in resolved.transitions] == [("RESOLVED", "3", "r1")]


async def test_an_event_that_settles_a_reservation_is_one_step(
    caller: Caller, gateway: Gateway, sender: Sender
) -> None:
    await put_limit(caller, "1000")
    counting = await caller.create(alert("50", "100"))
    grouped = await caller.create(alert("1000", groups=["region"]))
    await gateway.reserve("r1", "60", region="eu")
    await sender.send(SettlingEvent.of(usage_event("e1", "70", region="us"), "r1"))
    assert await gauges(caller, counting.alert_id) == {"": ("70", "0")}
    assert await gauges(caller, grouped.alert_id) == {"eu": ("0", "0"), "us": ("70", "0")}
    assert len(await caller.notifications()) == 1


MODEL = """
SELECT coalesce(x.properties ->> 'region', ''), sum(x.quantity), sum(x.held)
FROM (
    SELECT properties, quantity, 0 AS held FROM event
    WHERE organization_id = %(organization_id)s AND customer_id = %(customer)s AND metric_id = 'calls'
    UNION ALL
    SELECT properties, granted_quantity, granted_quantity FROM reservation
    WHERE organization_id = %(organization_id)s AND customer_id = %(customer)s AND state = 'OPEN'
) AS x GROUP BY 1
"""


async def modelled(caller: Caller, customer: str) -> dict[str, tuple[Decimal, Decimal]]:
    """What usage and open reservations come to, and what is held: in all (under "") and for each region."""
    rows = await caller.rows(MODEL, customer=customer)
    found = {region: (Decimal(value), Decimal(held)) for region, value, held in rows if region}
    found[""] = Decimal(sum(row[1] for row in rows)), Decimal(sum(row[2] for row in rows))
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_gauges_are_what_usage_and_open_reservations_come_to(
    caller: Caller, gateway: Gateway, other: Gateway, sender: Sender, seed: int
) -> None:
    """Random usage, voids, reservations and their ends through two servers, while alerts come and go."""
    draw = random.Random(seed)
    customers, regions = ("acme", "bob"), ("eu", "us", "")
    for customer in customers:
        await put_limit(caller, "1000000", f"limit-{customer}", customer=customer)
    alerts, opened, sent = list[str](), list[tuple[str, str]](), list[tuple[str, str]]()

    def properties() -> dict[str, Any]:
        region = draw.choice(regions)
        return {"region": region} if region else {}

    async def step(number: int) -> None:
        customer = draw.choice(customers)
        match draw.choice(("usage", "usage", "reserve", "reserve", "reserve", "settle", "release", "void", "alert")):
            case "usage":
                events = [
                    caller.event(f"e{number}-{place}", str(draw.randint(-3, 9)), customer, **properties())
                    for place in range(draw.randint(1, 3))
                ]
                sent.extend((customer, one.event_id) for one in events)
                await caller.send(*events)
            case "reserve":
                wanted = [
                    reserve(f"r{number}-{place}", str(draw.randint(1, 9)), customer=customer, **properties())
                    for place in range(draw.randint(1, 3))
                ]
                opened.extend((customer, one.reservation_id) for one in wanted)
                await draw.choice((gateway, other)).ask(*wanted)
            case "settle" if opened:
                customer, name = opened.pop(draw.randrange(len(opened)))
                quantity = draw.choice((None, "0", "2", "15"))
                if draw.random() < 0.4:
                    event = usage_event(f"s{number}", quantity or "4", customer=customer, **properties())
                    await sender.send(SettlingEvent.of(event, name))
                    return
                await draw.choice((gateway, other)).settle(name, quantity, customer=customer)
            case "release" if opened:
                customer, name = opened.pop(draw.randrange(len(opened)))
                await draw.choice((gateway, other)).release(name, customer)
            case "void" if sent:
                customer, name = sent.pop(draw.randrange(len(sent)))
                await void(caller, name, customer=customer)
            case "alert" if alerts and draw.random() < 0.4:
                await caller.archive(alerts.pop(draw.randrange(len(alerts))))
            case "alert":
                groups = draw.choice(((), ("region",)))
                levels = [str(level) for level in draw.sample(range(1, 120), 3)]
                new = alert(*levels, groups=groups, counts_held=draw.random() < 0.8)
                alerts.append((await caller.create_only(new)).alert_id)

    for number in range(60):
        await step(number)
    for alert_id in alerts:
        await caller.backfilled(alert_id)
    for customer in customers:
        model = await modelled(caller, customer)
        for alert_id in alerts:
            state = await caller.state(alert_id, customer)
            for item in state.gauges:
                region = "".join(one.value for one in item.gauge.group)
                value, held = model.get(region, (Decimal(0), Decimal(0)))
                expected = value if state.alert.counts_held else value - held
                assert (Decimal(item.gauge.value), Decimal(item.gauge.held)) == (expected, held)
                reached = {one.threshold.value for one in item.thresholds if one.in_alarm}
                assert reached == {one.value for one in state.alert.thresholds if Decimal(one.value) <= expected}
            grouped = state.alert.usage_threshold_reached.group_values
            shown = {"".join(one.value for one in item.gauge.group) for item in state.gauges}
            with_value = {region for region, (value, held) in model.items() if value and (region or not grouped)}
            if state.alert.counts_held:
                assert shown >= (with_value if grouped else with_value & {""})
