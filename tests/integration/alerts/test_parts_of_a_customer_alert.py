"""The state of one subscription or group, in pages; the alerts of one customer by status; and exclusions."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_exclusion_pb2,
    alert_pb2,
    condition_pb2,
    customer_alert_pb2,
    gauge_pb2,
    scope_pb2,
    subscription_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from server.calls.answer_size import DEFAULT_ANSWER_BYTES
from server.calls.validation import to_timestamp
from store.views import customer_gauges, gauge_windows
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import DEADLINE, Caller, thresholds, usage_alert
from tests.support.usage.organizations import organization

pytestmark = shares_server


IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
REQUESTED = customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED


def group(**values: str) -> list[gauge_pb2.GroupValue]:
    return [gauge_pb2.GroupValue(key=key, value=value) for key, value in values.items()]


async def got(caller: Caller, alert_id: str, **fields: Any) -> messages.GetCustomerAlertResponse:
    """One page of the state of an alert for the customer acme."""
    request = messages.GetCustomerAlertRequest(alert_id=alert_id, customer_id="acme", **fields)
    return await caller.alerts.GetCustomerAlert(request, metadata=caller.metadata, timeout=DEADLINE)


async def refusal(caller: Caller, alert_id: str, **fields: Any) -> grpc.aio.AioRpcError:
    """The error of that call."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await got(caller, alert_id, **fields)
    return raised.value


def regions(found: customer_alert_pb2.CustomerAlert) -> list[str]:
    return [item.gauge.group[0].value for item in found.gauges]


async def test_pages_hold_every_gauge_once_with_those_in_alarm_first(caller: Caller) -> None:
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    names = [f"r{number:03d}" for number in range(130)]
    events = [caller.event(f"e-{name}", "12" if name >= "r125" else "3", region=name) for name in names]
    await caller.send(*events)
    first = await got(caller, alert_id)
    assert (len(first.customer_alert.gauges), first.customer_alert.gauges_truncated) == (100, True)
    whole = await got(caller, alert_id, page_size=1000)
    assert not whole.next_page_token
    assert not whole.customer_alert.gauges_truncated
    assert sorted(regions(whole.customer_alert)) == names
    assert set(regions(whole.customer_alert)[:5]) == {f"r{number}" for number in range(125, 130)}
    found: list[str] = []
    token = ""
    for number in range(100):
        page = await got(caller, alert_id, page_size=3, page_token=token)
        assert page.customer_alert.status == IN_ALARM
        found += regions(page.customer_alert)
        token = page.next_page_token
        assert page.customer_alert.gauges_truncated is bool(token)
        if not token:
            assert number == 130 // 3
            break
    assert found == regions(whole.customer_alert)


async def test_page_decodes_only_the_gauges_that_it_shows(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one more, which says that there is another page."""
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    await caller.send(*(caller.event(f"e{number}", "12", region=f"r{number}") for number in range(60)))
    rows = list[object]()

    async def counted(*arguments: Any) -> AsyncIterator[Any]:
        async for row in customer_gauges.decoded(*arguments):
            rows.append(row)
            yield row

    monkeypatch.setattr(gauge_windows, "decoded", counted)
    first = await got(caller, alert_id, page_size=5)
    assert (len(first.customer_alert.gauges), len(rows)) == (5, 6)
    assert first.customer_alert.status == IN_ALARM


async def test_gauges_are_ordered_by_subscription_and_group_as_bytes(caller: Caller) -> None:
    """Whatever the locale of the database: capital letters first, letters with accents last."""
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    names = ["b", "a!", "a", "B", "é", "a b", "~", '"', "日本", "z"]
    await caller.send(*(caller.event(f"e{number}", "3", region=name) for number, name in enumerate(names)))
    assert regions((await got(caller, alert_id)).customer_alert) == sorted(names)


async def test_gauge_that_enters_alarm_between_two_pages_hides_no_other(caller: Caller) -> None:
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    await caller.send(*(caller.event(f"e-{name}", "3", region=name) for name in "abcdef"))
    first = await got(caller, alert_id, page_size=3)
    moved = regions(first.customer_alert)[-1]
    await caller.send(caller.event("more", "10", region=moved))
    rest = await got(caller, alert_id, page_size=100, page_token=first.next_page_token)
    assert sorted(regions(first.customer_alert) + regions(rest.customer_alert)) == list("abcdef")


@own_server
async def test_group_restricts_gauges_and_status(caller: Caller, clock: ManualClock) -> None:
    alert = usage_alert("10", groups=[("region", None), ("seat", None)])
    alert_id = (await caller.create(alert)).alert_id
    await caller.send(caller.event("e1", "12", region="eu", seat="a"))
    clock.advance(timedelta(seconds=1))
    await caller.send(caller.event("e2", "3", region="eu", seat="b"), caller.event("e3", "3", region="a", seat="eu"))
    whole = (await got(caller, alert_id)).customer_alert
    assert (whole.status, len(whole.gauges)) == (IN_ALARM, 3)
    eu = (await got(caller, alert_id, group=group(region="eu"))).customer_alert
    assert sorted(item.gauge.value for item in eu.gauges) == ["12", "3"]
    one = (await got(caller, alert_id, group=group(seat="b", region="eu"))).customer_alert
    assert (one.status, [item.gauge.value for item in one.gauges]) == (OK, ["3"])
    assert not one.HasField("change_time")
    nothing = (await got(caller, alert_id, group=group(region="us"))).customer_alert
    assert (nothing.status, nothing.no_data, list(nothing.gauges)) == (OK, True, [])


@own_server
async def test_change_time_is_that_of_the_latest_change_of_any_gauge(caller: Caller, clock: ManualClock) -> None:
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    await caller.send(caller.event("e1", "1", region="a"))
    assert not (await got(caller, alert_id)).customer_alert.HasField("change_time")
    for name in "ab":
        clock.advance(timedelta(seconds=1))
        await caller.send(caller.event(f"e-{name}", "12", region=name))
    changed = to_timestamp(clock.now())
    clock.advance(timedelta(seconds=1))
    await caller.send(caller.event("later", "1", region="c"))
    assert (await got(caller, alert_id, page_size=1)).customer_alert.change_time == changed


async def test_next_level_is_the_nearest_that_is_not_reached(caller: Caller) -> None:
    alert = usage_alert("10", "20")
    alert.thresholds.add(recurring_step="5")
    alert_id = (await caller.create(alert)).alert_id
    seen: list[tuple[str, str, str]] = []
    for number, quantity in enumerate(("4", "6", "11", "5.5")):
        await caller.send(caller.event(f"e{number}", quantity))
        [item] = (await got(caller, alert_id)).customer_alert.gauges
        seen.append((item.gauge.value, item.next_level, item.next_level_distance))
    assert seen == [("4", "10", "6"), ("10", "20", "10"), ("21", "25", "4"), ("26.5", "30", "3.5")]


async def on_subscriptions(caller: Caller) -> str:
    """An alert on the subscriptions of a plan; acme has two of them, and s1 is in alarm."""
    for name in ("s1", "s2"):
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id="acme", subscription_id=name, plan_id="gold")
        )
    alert = alert_pb2.Alert(
        display_name="usage",
        scope=scope_pb2.AlertScope(plan=scope_pb2.PlanScope(plan_id="gold")),
        usage_exceeded=condition_pb2.UsageExceededCondition(metric_id="calls"),
        thresholds=thresholds("10"),
    )
    alert_id = (await caller.create(alert)).alert_id
    await caller.send(caller.event("e1", "12", subscription="s1"), caller.event("e2", "3", subscription="s2"))
    return alert_id


async def test_subscription_restricts_the_state_and_shows_why_it_is_disabled(caller: Caller) -> None:
    alert_id = await on_subscriptions(caller)
    second = (await got(caller, alert_id, subscription_id="s2")).customer_alert
    assert (second.status, [item.gauge.subscription_id for item in second.gauges]) == (OK, ["s2"])
    disable = messages.DisableAlertRequest(alert_id=alert_id, customer_id="acme", subscription_id="s1")
    await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    first = (await got(caller, alert_id, subscription_id="s1")).customer_alert
    assert (first.disabled_reason, list(first.gauges)) == (REQUESTED, [])
    assert first.status not in (OK, IN_ALARM)
    second = (await got(caller, alert_id, subscription_id="s2")).customer_alert
    assert (second.status, len(second.gauges)) == (OK, 1)
    assert second.disabled_reason != REQUESTED
    assert (await got(caller, alert_id)).customer_alert.disabled_reason != REQUESTED


async def test_subscription_that_the_alert_does_not_cover_is_refused(caller: Caller) -> None:
    alert_id = await on_subscriptions(caller)
    await caller.put_subscription(subscription_pb2.Subscription(customer_id="acme", subscription_id="s3"))
    for name in ("s3", "unknown"):
        refused = await refusal(caller, alert_id, subscription_id=name)
        assert reason_of(refused) == "ERROR_REASON_ALERT_NOT_FOUND"
    of_customers = (await caller.create(usage_alert("10"))).alert_id
    assert violations_of(await refusal(caller, of_customers, subscription_id="s1")) == ["subscription_id"]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"page_size": -1}, ["page_size"]),
        ({"max_answer_bytes": DEFAULT_ANSWER_BYTES - 1}, ["max_answer_bytes"]),
        ({"group": [gauge_pb2.GroupValue(value="a")]}, ["group[0].key"]),
        ({"group": [*group(a="1"), *group(a="2")]}, ["group[1].key"]),
        ({"group": [*group(a="x" * 257)]}, ["group[0].value"]),
        ({"group": [gauge_pb2.GroupValue(key=f"k{number}") for number in range(65)]}, ["group"]),
        ({"subscription_id": " s"}, ["subscription_id"]),
    ],
)
async def test_invalid_parts_are_refused_by_name(caller: Caller, fields: dict[str, Any], paths: list[str]) -> None:
    alert_id = (await caller.create(usage_alert("10"))).alert_id
    await caller.send(caller.event("e"))
    assert violations_of(await refusal(caller, alert_id, **fields)) == paths


async def test_page_token_of_gauges_is_refused_with_other_filters(caller: Caller) -> None:
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    await caller.send(*(caller.event(f"e-{name}", region=name) for name in "abc"))
    token = (await got(caller, alert_id, page_size=1)).next_page_token
    refused = await refusal(caller, alert_id, page_token=token, group=group(region="a"))
    assert reason_of(refused) == "ERROR_REASON_PAGE_TOKEN_INVALID"


@own_server
async def test_page_token_of_gauges_is_refused_after_their_period(caller: Caller, clock: ManualClock) -> None:
    alert_id = (await caller.create(usage_alert("10", groups=[("region", None)]))).alert_id
    await caller.send(*(caller.event(f"e-{name}", region=name) for name in "abc"))
    token = (await got(caller, alert_id, page_size=1)).next_page_token
    assert len((await got(caller, alert_id, page_token=token)).customer_alert.gauges) == 2
    clock.advance(timedelta(days=31))
    await caller.send(*(caller.event(f"f-{name}", region=name) for name in "abc"))
    refused = await refusal(caller, alert_id, page_token=token)
    assert reason_of(refused) == "ERROR_REASON_PAGE_TOKEN_INVALID"


@own_server
@pytest.mark.parametrize("page_size", [1, 2, 5, 1000])
async def test_alerts_of_one_customer_are_listed_by_status(
    caller: Caller, clock: ManualClock, page_size: int
) -> None:
    created: list[str] = []
    for level in (5, 50, 6, 7, 60, 8, 70):
        created.append((await caller.create(usage_alert(str(level)))).alert_id)
        clock.advance(timedelta(seconds=1))
    await caller.send(caller.event("e", "10"))

    async def listed(*statuses: customer_alert_pb2.CustomerAlertStatus.ValueType) -> list[str]:
        found: list[str] = []
        request = messages.ListCustomerAlertsRequest(customer_id="acme", statuses=statuses, page_size=page_size)
        for _ in range(20):
            page = await caller.alerts.ListCustomerAlerts(request, metadata=caller.metadata, timeout=DEADLINE)
            assert len(page.customer_alerts) <= page_size
            found += [one.alert.alert_id for one in page.customer_alerts]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found
        raise AssertionError("the list has no end")

    assert await listed(IN_ALARM) == [created[index] for index in (0, 2, 3, 5)]
    assert await listed(OK) == [created[index] for index in (1, 4, 6)]
    assert await listed(IN_ALARM, OK) == await listed() == created


async def exclusions(caller: Caller, **fields: Any) -> list[alert_exclusion_pb2.AlertExclusion]:
    """The exclusions of an alert, from all pages."""
    found: list[alert_exclusion_pb2.AlertExclusion] = []
    request = messages.ListAlertExclusionsRequest(**fields)
    while True:
        page = await caller.alerts.ListAlertExclusions(request, metadata=caller.metadata, timeout=DEADLINE)
        found += page.exclusions
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


@own_server
@pytest.mark.parametrize("page_size", [1, 100])
async def test_exclusions_show_customer_subscription_reason_time_and_key(
    caller: Caller, clock: ManualClock, page_size: int
) -> None:
    alert_id = await on_subscriptions(caller)
    assert await exclusions(caller, alert_id=alert_id) == []
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="beta", subscription_id="s1", plan_id="gold")
    )
    [[key_id]] = await caller.rows(
        "SELECT key_id FROM api_key WHERE organization_id = %(organization_id)s ORDER BY key_id LIMIT 1"
    )
    times = {}
    for customer, subscription in (("beta", ""), ("acme", "s2"), ("acme", "")):
        clock.advance(timedelta(seconds=1))
        times[customer, subscription] = to_timestamp(clock.now())
        request = messages.DisableAlertRequest(alert_id=alert_id, customer_id=customer, subscription_id=subscription)
        await caller.alerts.DisableAlert(request, metadata=caller.metadata)
    found = await exclusions(caller, alert_id=alert_id, page_size=page_size)
    assert [(one.customer_id, one.subscription_id) for one in found] == [("acme", ""), ("acme", "s2"), ("beta", "")]
    assert {(one.customer_id, one.subscription_id): one.create_time for one in found} == times
    assert {(one.reason, one.key_id) for one in found} == {(REQUESTED, key_id)}
    assert await exclusions(caller, alert_id=alert_id, customer_id="beta") == [found[2]]
    enable = messages.EnableAlertRequest(alert_id=alert_id, customer_id="acme", subscription_id="s2")
    await caller.alerts.EnableAlert(enable, metadata=caller.metadata)
    assert await exclusions(caller, alert_id=alert_id) == [found[0], found[2]]


async def test_exclusions_of_another_organizations_alert_are_not_found(caller: Caller, clock: ManualClock) -> None:
    alert_id = await on_subscriptions(caller)
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await exclusions(stranger, alert_id=alert_id)
    assert reason_of(refused.value) == "ERROR_REASON_ALERT_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await exclusions(caller, page_size=-1)
    assert violations_of(refused.value) == ["alert_id", "page_size"]
