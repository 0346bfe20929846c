"""Steps of backfills: within a customer, many alerts together, gauges far below an alert, members of a plan."""

import asyncio

import pytest

from engine.limits import BackfillLimits, EngineLimits
from evaluator.alerts import Scope, ScopeKind
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    filter_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)
from generated.tidemark.v1.balance_pb2 import BALANCE_KIND_SEAT_CREDIT
from store.alerts import backfills as stored_backfills
from store.postgres.database import Database, driver
from tests.support.balances.holder import Holder
from tests.support.usage.backfill_workers import (
    OF_ACME,
    OF_SEATS,
    SEATS,
    Workers,
    finish,
    notified,
    progress,
    use_seats,
    use_seats_of,
)
from tests.support.usage.caller import ALL_CUSTOMERS, BOTH, Caller, on_customer, on_plan, usage_alert
from tests.support.usage.refusing import refusing


async def test_backfill_goes_on_within_a_customer_after_a_restart(caller: Caller, workers: Workers) -> None:
    await use_seats(caller)
    await caller.send(caller.event("other", "5", "zeta", seat="s00"))
    alert = await caller.create_only(usage_alert("5", groups=OF_SEATS))
    assert await workers()()
    [stored] = await progress(caller)
    assert stored is not None
    assert stored.startswith("\tacme\t")
    assert len(await notified(caller, alert)) == 5
    assert await workers()()  # another process
    assert len(await notified(caller, alert)) == 10
    await finish(workers())
    assert await progress(caller) == [None]
    assert await notified(caller, alert) == [*OF_ACME, "zeta/s00"]


async def test_progress_within_a_customer_repeats_the_customer_on_an_earlier_version(
    caller: Caller, workers: Workers
) -> None:
    for customer in ("abba", "acme", "acme-2"):
        await use_seats_of(caller, customer)
    await caller.create_only(usage_alert("5", groups=OF_SEATS))
    step = workers()
    for _ in range(4):
        assert await step()
    [stored] = await progress(caller)
    assert stored is not None
    assert stored.startswith("abba\tacme\t")
    # An earlier version takes the text as a customer id.
    assert await members(caller, Scope(ScopeKind.ALL_CUSTOMERS), stored, 10) == ["acme", "acme-2"]


async def test_backfill_is_complete_after_the_transaction_that_evaluates_where_nodes_show_it_later(
    caller: Caller, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster: a caller that sees that an alert is evaluated sees its notifications, too."""
    monkeypatch.setattr(stored_backfills, "may_complete", lambda _: False)
    await use_seats(caller)
    alerts = [await caller.create_only(usage_alert("5"))]
    alerts += [await caller.create_only(usage_alert(level, scope=on_customer("acme"))) for level in ("6", "7")]
    step, seen = workers(BackfillLimits()), [await progress(caller)]
    while await step():
        seen.append(await progress(caller))
    for of_one in zip(*seen, strict=True):
        assert list(dict.fromkeys(of_one)) == ["", "acme", None]
    for alert in alerts:
        assert await notified(caller, alert) == ["acme"]
    edited = await caller.create_only(usage_alert("8", "70", scope=on_customer("acme")))
    assert await step()
    assert set(await progress(caller)) == {"acme", None}
    request = alert_service_pb2.UpdateAlertRequest(alert=edited)
    request.alert.thresholds[1].value = "60"
    request.update_mask.paths.append("thresholds")
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    await finish(step)
    assert set(await progress(caller)) == {None}
    assert await notified(caller, edited) == ["acme"] * 2


async def test_two_servers_evaluate_each_gauge_of_a_customer_once(caller: Caller, workers: Workers) -> None:
    for customer in ("acme", "beta", "gamma"):
        await use_seats_of(caller, customer)
    alerts = [await caller.create_only(usage_alert(level, groups=OF_SEATS)) for level in ("4", "5")]
    await asyncio.gather(finish(workers()), finish(workers()))
    await finish(workers())  # what each left to the other
    assert await progress(caller) == [None, None]
    expected = [f"{customer}/{seat}" for customer in ("acme", "beta", "gamma") for seat in SEATS]
    for alert in alerts:
        assert await notified(caller, alert) == expected


@pytest.mark.parametrize("evaluate", [True, False])
async def test_usage_between_two_parts_of_a_customer_reaches_each_threshold_once(
    caller: Caller, workers: Workers, evaluate: bool
) -> None:
    await use_seats(caller)
    wanted = usage_alert(thresholds=[threshold_pb2.Threshold(value=level, notify_on=BOTH) for level in ("5", "7")])
    wanted.usage_threshold_reached.group_values.add(key="seat")
    alert = await caller.create_only(wanted, evaluate=evaluate)
    step = workers()
    assert await step()
    # One event for each gauge, of which some are evaluated and some are not; and one for a new seat.
    answer = await caller.send(
        *(caller.event(f"later-{seat}", "2", seat=seat) for seat in SEATS), caller.event("new", "9", seat="s99")
    )
    reached = sorted((one.gauge.group[0].value, one.threshold.value) for one in answer.transitions)
    assert [one for one in reached if one[1] == "7"] == [(seat, "7") for seat in (*SEATS, "s99")]
    await finish(step)
    assert await progress(caller) == [None]
    seen = sorted(
        (one.body["data"]["gauge"]["group"][0]["value"], transition.level)
        for one in await caller.evaluations()
        if one.alert_id == alert.alert_id
        for transition in one.transitions
    )
    earlier = [(seat, "5") for seat in SEATS] if evaluate else []
    assert seen == sorted([*earlier, ("s99", "5"), *((seat, "7") for seat in (*SEATS, "s99"))])


async def test_backfill_that_begins_again_within_a_customer_evaluates_all_of_it(
    caller: Caller, workers: Workers
) -> None:
    await use_seats(caller)
    alert = await caller.create_only(usage_alert("6", groups=OF_SEATS))
    step = workers()
    assert await step()
    assert not await notified(caller, alert)
    request = alert_service_pb2.UpdateAlertRequest(alert=alert)
    request.alert.thresholds[0].value = "5"
    request.update_mask.paths.append("thresholds")
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
    await finish(step)
    assert await notified(caller, alert) == OF_ACME


@pytest.mark.parametrize("ending", ["archive", "disable"])
async def test_backfill_within_a_customer_ends_with_its_alert(caller: Caller, workers: Workers, ending: str) -> None:
    await use_seats(caller)
    alert = await caller.create_only(usage_alert("5", groups=OF_SEATS))
    step = workers()
    assert await step()
    if ending == "archive":
        await caller.archive(alert.alert_id)
    else:
        disable = alert_service_pb2.DisableAlertRequest(alert_id=alert.alert_id)
        await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    await finish(step)
    assert len(await notified(caller, alert)) == 5
    if ending == "disable":
        enable = alert_service_pb2.EnableAlertRequest(alert_id=alert.alert_id)
        await caller.alerts.EnableAlert(enable, metadata=caller.metadata)
        await finish(step)
        assert await notified(caller, alert) == OF_ACME


@pytest.mark.parametrize("engine_limits", [EngineLimits(groups=7)], ids=[pytest.HIDDEN_PARAM])
async def test_group_limit_is_reached_between_two_parts(caller: Caller, workers: Workers) -> None:
    await use_seats(caller)
    alert = await caller.create_only(usage_alert("5", groups=OF_SEATS))
    await finish(workers())
    assert await progress(caller) == [None]
    own = [one for one in await caller.notifications() if one.alert_id == alert.alert_id]
    assert len([one for one in own if one.body["type"] == "alert.disabled"]) == 1
    assert len(await notified(caller, alert)) == 7


async def test_seats_of_a_customer_are_evaluated_in_parts(caller: Caller, workers: Workers) -> None:
    acme = Holder(caller)
    for seat in SEATS:
        await acme.put(f"b-{seat}", "1", kind=BALANCE_KIND_SEAT_CREDIT, seat=("user", seat))
    seats = condition_pb2.LowRemainingSeatBalanceReachedCondition(
        seat_filter=filter_pb2.SeatFilter(seat_group_key="user")
    )
    wanted = alert_pb2.Alert(
        display_name="seats",
        scope=scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope()),
        low_remaining_seat_balance_reached=seats,
        thresholds=[threshold_pb2.Threshold(value="2")],
    )
    alert = await caller.create_only(wanted)
    step = workers()
    assert await step()
    assert len(await notified(caller, alert)) == 5
    await finish(workers())
    assert len(await notified(caller, alert)) == len(SEATS) == len(set(await notified(caller, alert)))


async def test_alerts_that_name_a_customer_are_evaluated_together(caller: Caller, workers: Workers) -> None:
    customers = [f"c{number:02}" for number in range(30)]
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    alerts = [await caller.create_only(usage_alert("5", scope=on_customer(customer))) for customer in customers]
    second = await caller.create_only(usage_alert("4", scope=on_customer("c03")))
    wide = await caller.create_only(usage_alert("3"))
    await caller.archive(alerts[7].alert_id)
    step = workers(BackfillLimits())
    assert await step()
    assert await step()
    await finish(step)
    assert await progress(caller) == [None] * 32
    for number, alert in enumerate(alerts):
        assert await notified(caller, alert) == ([] if number == 7 else [customers[number]])
    assert await notified(caller, second) == ["c03"]
    assert await notified(caller, wide) == customers


async def test_one_alert_that_cannot_be_evaluated_does_not_keep_those_of_other_customers(
    caller: Caller, workers: Workers
) -> None:
    customers = [f"c{number:02}" for number in range(40)]
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    async with refusing(caller, "notification", "customer_id = 'c17'"):
        alerts = [await caller.create_only(usage_alert("5", scope=on_customer(one))) for one in customers]
        step = workers(BackfillLimits())
        await finish(step)
        assert sorted(one.customer_id for one in await caller.notifications()) == [
            one for one in customers if one != "c17"
        ]
        assert [stored for stored in await progress(caller) if stored is not None] == [""]
        rows = await caller.rows("SELECT count(*) FROM operator_event WHERE organization_id = %(organization_id)s")
        assert rows == [(1,)]
        await caller.create_only(usage_alert("5", scope=on_customer("c00")))
        await finish(step)
    await finish(step)
    assert await notified(caller, alerts[17]) == ["c17"]
    assert set(await progress(caller)) == {None}


async def test_alert_with_more_gauges_than_a_step_takes_is_evaluated_alone(caller: Caller, workers: Workers) -> None:
    await use_seats(caller)
    await caller.send(caller.event("other", "5", "beta", seat="s00"))
    many = await caller.create_only(usage_alert("5", scope=on_customer(), groups=OF_SEATS))
    few = await caller.create_only(usage_alert("5", scope=on_customer("beta"), groups=OF_SEATS))
    await finish(workers())
    assert await notified(caller, many) == OF_ACME
    assert await notified(caller, few) == ["beta/s00"]
    assert await progress(caller) == [None, None]


@pytest.mark.parametrize("named", [False, True])
async def test_groups_of_a_customer_with_very_many_events_are_counted_before_the_step(
    caller: Caller, workers: Workers, named: bool
) -> None:
    await use_seats(caller)
    await caller.send(*(caller.event(f"small-{number}", "5", "abba", seat="s00") for number in range(2)))
    await caller.send(caller.event("last", "5", "zeta", seat="s00"))
    scope = on_customer() if named else ALL_CUSTOMERS
    alert = await caller.create_only(usage_alert("5", groups=OF_SEATS, scope=scope))
    other = await caller.create_only(usage_alert("5", "8", groups=[("seat", "s03")]))
    step = workers(BackfillLimits(gauges_per_step=5, large_customer=10))
    assert await step()
    assert await step()
    # Usage between the count and the evaluation is counted once.
    answer = await caller.send(*(caller.event(f"later-{seat}", "3", seat=seat) for seat in SEATS))
    await finish(step)
    assert await progress(caller) == [None, None]
    assert await notified(caller, alert) == (OF_ACME if named else ["abba/s00", *OF_ACME, "zeta/s00"])
    values = await caller.rows(
        "SELECT DISTINCT value::text FROM gauge WHERE organization_id = %(organization_id)s AND customer_id = 'acme'"
    )
    assert values == [("8",)]
    reached = [one.level for one in answer.transitions if one.alert_id == other.alert_id]
    stored = [
        transition.level
        for one in await caller.evaluations()
        if one.alert_id == other.alert_id
        for transition in one.transitions
    ]
    assert sorted(set(stored)) == ["5", "8"]
    assert len(stored) == 2
    assert "8" in reached


async def test_alert_on_a_plan_is_evaluated_for_its_members(caller: Caller, workers: Workers) -> None:
    customers = [f"c{number:02}" for number in range(9)]
    await caller.send(*(caller.event("e", "5", customer) for customer in customers))
    for customer in ("c02", "c05", "c07"):
        await caller.put_customer(customer_pb2.Customer(customer_id=customer, plan_id="pro"))
    for customer in ("c05", "c08"):
        subscription = subscription_pb2.Subscription(customer_id=customer, subscription_id="s", plan_id="pro")
        await caller.put_subscription(subscription)
        await caller.send(caller.event("of-subscription", "5", customer, subscription="s"))
    alert = await caller.create_only(usage_alert("5", scope=on_plan("pro")))
    await finish(workers(BackfillLimits(customers_per_step=2)))
    assert await notified(caller, alert) == ["c02", "c05", "c07"]
    scope = Scope(ScopeKind.PLAN, plan_id="pro")
    assert await members(caller, scope, "", 3) == ["c02", "c05", "c07"]
    assert await members(caller, scope, "c05", 3) == ["c07", "c08"]


async def members(caller: Caller, scope: Scope, after: str, limit: int) -> list[str]:
    """The next customers of a backfill."""
    [[organization_id]] = await caller.rows(
        "SELECT organization_id FROM alert WHERE organization_id = %(organization_id)s LIMIT 1"
    )
    database = Database(caller.database_url)
    try:
        async with database.transaction() as connection:
            raw = await driver(connection)
            return await stored_backfills.customers(raw, organization_id, scope, after, limit)
    finally:
        await database.close()
