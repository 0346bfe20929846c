"""Percentage thresholds: limits that are put before and after usage, changed and removed."""

from decimal import Decimal

from evaluator.amounts import format_decimal
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    filter_pb2,
    subscription_pb2,
    threshold_pb2,
)
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    BOTH,
    Caller,
    ShortTransition,
    on_plan,
    shortened,
    usage_alert,
    values,
)
from tests.support.usage.percentages import BY_SEAT, notified, percent, put_limit

pytestmark = shares_server

IN_ALARM, OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM, customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK


async def test_usage_reaches_percentage_thresholds(caller: Caller) -> None:
    await put_limit(caller, "50")
    alert = await caller.create(usage_alert(thresholds=percent("80", "100", "150", "0.5")))
    assert not (await caller.send(caller.event("e1", "0.24"))).transitions
    answer = await caller.send(caller.event("e2", "39.76"))
    assert shortened(answer.transitions) == [
        ShortTransition("REACHED", "0.25", "0.24", "40", "e2"),
        ShortTransition("REACHED", "40", "0.24", "40", "e2"),
    ]
    shown = answer.transitions[1]
    assert (shown.threshold.percent_of_limit, shown.threshold.value, shown.gauge.limit) == ("80", "", "50")
    answer = await caller.send(caller.event("e3", "35"))
    assert [one.level for one in shortened(answer.transitions)] == ["50", "75"]
    first, second = await caller.notifications()
    assert first.body["data"]["gauge"]["limit"] == "50"
    assert first.body["data"]["transitions"][1]["threshold"] == {"percent_of_limit": "80"}
    assert (second.sequence, second.body["data"]["previous_value"]) == (2, "40")
    state = await caller.state(alert.alert_id)
    assert state.status == IN_ALARM
    assert state.gauges[0].gauge.limit == "50"
    assert [(one.threshold.percent_of_limit, one.in_alarm, one.level) for one in state.gauges[0].thresholds] == [
        ("80", True, "40"),
        ("100", True, "50"),
        ("150", True, "75"),
        ("0.5", True, "0.25"),
    ]


async def test_put_limit_evaluates_its_customer_before_it_answers(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=percent("80", "100")))
    await caller.send(caller.event("e1", "90"), caller.event("e1", "90", "other"))
    assert await notified(caller, alert) == []
    expected: list[tuple[str, str]] = []
    for amount, found in (
        ("100", [("REACHED", "80")]),
        ("90", [("REACHED", "90")]),
        ("112.5", [("RESOLVED", "112.5")]),
        ("1000", [("RESOLVED", "800")]),
        ("1000", []),
        ("10", [("REACHED", "8"), ("REACHED", "10")]),
        ("", [("RESOLVED", "10"), ("RESOLVED", "8")]),
        ("60", [("REACHED", "48"), ("REACHED", "60")]),
    ):
        await put_limit(caller, amount)
        expected += found
        assert await notified(caller, alert) == expected
        [shown] = (await caller.state(alert.alert_id)).gauges
        assert shown.gauge.limit == amount
        levels = [format_decimal(Decimal(amount) * Decimal("0.8")), amount] if amount else ["", ""]
        assert [one.level for one in shown.thresholds] == levels
    assert shown.change_reason == customer_alert_pb2.CHANGE_REASON_EVALUATION
    sequences = sorted(one.sequence for one in await caller.notifications())
    assert sequences == list(range(1, 8))
    assert await notified(caller, alert, "other") == []
    # The gauge keeps its value, and its trip levels follow the limit.
    answer = await caller.send(caller.event("e2", "-31"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 59}
    assert shortened(answer.transitions) == [ShortTransition("RESOLVED", "60", "90", "59", "e2")]


async def test_percentage_threshold_without_a_limit_is_not_reached(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=[*percent("80"), threshold_pb2.Threshold(value="1000")]))
    assert not (await caller.send(caller.event("e1", "999"))).transitions
    state = await caller.state(alert.alert_id)
    assert state.status == OK
    assert [(one.in_alarm, one.level) for one in state.gauges[0].thresholds] == [(False, ""), (False, "")]
    answer = await caller.send(caller.event("e2", "1"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "1000", "999", "1000", "e2")]


async def test_each_group_has_its_own_limit(caller: Caller) -> None:
    await put_limit(caller, "1000")  # on all usage together, and so not on a seat
    await put_limit(caller, "10", groups=BY_SEAT)
    await put_limit(caller, "100", groups=[("seat", "ann")])
    alert = await caller.create(usage_alert(thresholds=percent("80"), groups=BY_SEAT))
    answer = await caller.send(*(caller.event(f"e-{seat}", "50", seat=seat) for seat in ("ann", "bob", "cid")))
    assert [(one.gauge.group[0].value, one.level, one.gauge.limit) for one in answer.transitions] == [
        ("bob", "8", "10"),
        ("cid", "8", "10"),
    ]
    await put_limit(caller, "40", groups=[("seat", "cid")])  # still above its level
    await put_limit(caller, "", groups=[("seat", "ann")])  # the limit of each seat applies now
    assert sorted(await notified(caller, alert)) == [("REACHED", "8")] * 3
    await put_limit(caller, "80", groups=[("seat", "cid")])
    assert sorted(await notified(caller, alert)) == [("REACHED", "8")] * 3 + [("RESOLVED", "64")]
    await put_limit(caller, "", groups=BY_SEAT)
    assert sorted(await notified(caller, alert))[4:] == [("RESOLVED", "8")] * 2
    state = await caller.state(alert.alert_id)
    limits = {gauge.gauge.group[0].value: gauge.gauge.limit for gauge in state.gauges}
    assert limits == {"ann": "", "bob": "", "cid": "80"}


async def test_threshold_override_can_be_a_percentage(caller: Caller) -> None:
    condition = condition_pb2.CostExceededCondition(currency="USD", grouping_keys=["seat"])
    ann = filter_pb2.GroupSelector(key="seat", value="ann")
    condition.threshold_overrides.add(group_values=[ann], thresholds=percent("50"))
    wanted = alert_pb2.Alert(display_name="cost", scope=on_plan("gold"), cost_exceeded=condition)
    wanted.thresholds.add(value="80")
    alert = await caller.create(wanted)
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    )
    for seat in ("ann", "bob"):
        event = caller.event(f"e-{seat}", cost="60", currency="USD", subscription="pro", seat=seat)
        assert not (await caller.send(event)).transitions
    await put_limit(caller, "100", currency="USD", groups=BY_SEAT)
    assert await notified(caller, alert) == [("REACHED", "50")]


async def test_changed_limit_does_not_evaluate_alerts_without_percentages(caller: Caller) -> None:
    plain = await caller.create(usage_alert("50", "95"))
    alert = await caller.create(usage_alert(thresholds=[*percent("80"), threshold_pb2.Threshold(value="70")]))
    await caller.send(caller.event("e1", "90"))
    before = await caller.state(plain.alert_id)
    for amount in ("100", "1000", ""):
        await put_limit(caller, amount)
    assert await notified(caller, alert) == [("REACHED", "70"), ("REACHED", "80"), ("RESOLVED", "800")]
    assert await notified(caller, plain) == [("REACHED", "50")]
    assert await caller.state(plain.alert_id) == before
    answer = await caller.send(caller.event("e2", "5"))
    assert [one.level for one in shortened(answer.transitions)] == ["95"]
    assert [one.gauge.limit for one in answer.transitions] == [""]


async def test_percentage_threshold_resolves_at_a_percentage(caller: Caller) -> None:
    await put_limit(caller, "1000")
    alert = await caller.create(usage_alert(thresholds=percent("80", resolve="70")))
    for number, amount in enumerate(("800", "-99", "-1", "99")):
        await caller.send(caller.event(f"e{number}", amount))
    expected = [("REACHED", "800"), ("RESOLVED", "800")]
    assert await notified(caller, alert) == expected
    [shown] = (await caller.state(alert.alert_id)).gauges[0].thresholds
    assert (shown.threshold.percent_of_limit, shown.threshold.resolve_value) == ("80", "70")
    await put_limit(caller, "900")
    expected.append(("REACHED", "720"))
    assert await notified(caller, alert) == expected
    await put_limit(caller, "1100")  # 799 is below the level of 880 and above the resolve value of 770
    assert await notified(caller, alert) == expected
    await put_limit(caller, "1200")
    assert await notified(caller, alert) == [*expected, ("RESOLVED", "960")]


async def test_silently_reached_percentage_threshold_stays_silent(caller: Caller) -> None:
    await put_limit(caller, "100")
    await caller.send(caller.event("e1", "90"))
    alert = await caller.create(usage_alert(thresholds=percent("80", "100")), evaluate=False)
    await put_limit(caller, "90")
    assert await notified(caller, alert) == [("REACHED", "90")]
    await put_limit(caller, "1000")
    assert await notified(caller, alert) == [("REACHED", "90"), ("RESOLVED", "1000")]


async def test_update_alert_replaces_percentage_thresholds(caller: Caller) -> None:
    await put_limit(caller, "100")
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    await caller.send(caller.event("e1", "85"))

    async def edit(replacement: list[threshold_pb2.Threshold]) -> list[tuple[str, str]]:
        changed = alert_pb2.Alert(alert_id=alert.alert_id, thresholds=replacement)
        request = alert_service_pb2.UpdateAlertRequest(alert=changed)
        await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
        await caller.backfilled(alert.alert_id)
        return await notified(caller, alert)

    expected = [("REACHED", "80")]
    assert await edit(percent("80", "90", resolve="10")) == expected
    expected += [("RESOLVED", "80"), ("REACHED", "50")]
    assert sorted(await edit(percent("50"))) == sorted(expected)
    expected += [("RESOLVED", "50"), ("REACHED", "50")]  # a fixed value is another threshold, even at the same level
    assert sorted(await edit([threshold_pb2.Threshold(value="50", notify_on=BOTH)])) == sorted(expected)
    await put_limit(caller, "1")
    assert len(await notified(caller, alert)) == len(expected)
