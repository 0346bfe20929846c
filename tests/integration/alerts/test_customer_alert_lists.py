"""ListCustomerAlerts over many customers, and SummarizeCustomerAlerts: gauges in alarm first, the newest on top."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_pb2,
    customer_alert_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from server.limits import ServerLimits
from store.postgres import bounded_pages
from store.postgres.database import Database, driver
from store.views import alarms
from tests.support.alerts.client import Client, refused
from tests.support.server.limits import with_server_limits
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
EVALUATING = customer_alert_pb2.CUSTOMER_ALERT_STATUS_EVALUATING
NOT_EVALUATED = customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED

TOKENS = 'display_name: "tokens" usage_threshold_reached { metric_id: "tokens" } thresholds { value: "10" } '
SPEND = 'display_name: "spend" spend_threshold_reached { currency: "USD" } thresholds { value: "5" } '
ALL = "scope { all_customers {} } "

Pair = tuple[str, str, int]


def event(number: int, customer_id: str, quantity: str = "12", rest: str = "") -> str:
    return f'event_id: "{number}" customer_id: "{customer_id}" metric_id: "tokens" quantity: "{quantity}" {rest}'


async def listed(ours: Client, **fields: Any) -> list[customer_alert_pb2.CustomerAlert]:
    """All pages, from one token to the next."""
    found: list[customer_alert_pb2.CustomerAlert] = []
    token = ""
    for _ in range(200):
        page = await ours.customer_alerts("", page_token=token, **fields)
        found += page.customer_alerts
        token = page.next_page_token
        if not token:
            return found
    raise AssertionError("the list has no end")


def shown(found: list[customer_alert_pb2.CustomerAlert]) -> list[Pair]:
    return [(one.customer_id, one.alert.display_name, one.status) for one in found]


@own_server
@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_the_list_shows_gauges_in_alarm_by_newest_change_and_then_other_customers_by_id(
    ours: Client, clock: ManualClock, page_size: int
) -> None:
    tokens, spend = await ours.create(TOKENS + ALL), await ours.create(SPEND + ALL)
    await ours.settled(tokens.alert_id, spend.alert_id)
    for number, name in enumerate(("c", "a", "d", "b")):
        clock.advance(timedelta(seconds=1))
        quantity, cost = ("12", "1") if name in "abc" else ("1", "9")
        await ours.use(clock.now(), event(number, name, quantity, f'cost: "{cost}"'))
    await ours.settled(tokens.alert_id, spend.alert_id)
    found = await listed(ours, page_size=page_size)
    assert shown(found) == [
        ("b", "tokens", IN_ALARM),
        ("d", "spend", IN_ALARM),
        ("a", "tokens", IN_ALARM),
        ("c", "tokens", IN_ALARM),
        ("a", "spend", OK),
        ("b", "spend", OK),
        ("c", "spend", OK),
        ("d", "tokens", OK),
    ]
    for one in found:
        assert one == await ours.customer_alert(one.alert.alert_id, one.customer_id)


async def test_each_filter_narrows_the_list(ours: Client, clock: ManualClock) -> None:
    tokens, spend = await ours.create(TOKENS + ALL), await ours.create(SPEND + ALL)
    await ours.settled(tokens.alert_id, spend.alert_id)
    await ours.use(clock.now(), *(event(number, name) for number, name in enumerate("abc")))
    await ours.archive(spend.alert_id)
    assert shown(await listed(ours, customer_ids=["b", "nobody"])) == [("b", "tokens", IN_ALARM)]
    assert shown(await listed(ours, alert_ids=[spend.alert_id])) == []
    archived = await listed(ours, alert_ids=[spend.alert_id], states=[alert_pb2.ALERT_STATE_ARCHIVED])
    assert [(one.customer_id, one.status) for one in archived] == [(name, NOT_EVALUATED) for name in "abc"]
    states = [alert_pb2.ALERT_STATE_ARCHIVED, alert_pb2.ALERT_STATE_ACTIVE]
    assert await listed(ours, statuses=[NOT_EVALUATED], states=states) == archived
    assert await listed(ours, statuses=[OK, EVALUATING]) == []
    assert len(await listed(ours, statuses=[IN_ALARM], page_size=2)) == 3
    assert len(await listed(ours, alert_ids=[tokens.alert_id], page_size=2)) == 3


async def test_a_gauge_is_an_entry_of_its_own_while_it_is_in_alarm(ours: Client, clock: ManualClock) -> None:
    grouped = 'display_name: "g" usage_threshold_reached { metric_id: "tokens" group_values { key: "region" } } '
    alert = await ours.create(grouped + 'thresholds { value: "10" } ' + ALL)
    await ours.settled(alert.alert_id)
    regions = (("eu", "12"), ("us", "3"), ("ap", "50"))
    await ours.use(
        clock.now(),
        *(
            event(number, "a", quantity, f'properties {{ key: "region" value: "{region}" }}')
            for number, (region, quantity) in enumerate(regions)
        ),
    )
    found = await listed(ours, page_size=1)
    assert {one.gauges[0].gauge.value for one in found} == {"12", "50"}
    assert [len(one.gauges) for one in found] == [1, 1]
    assert [one.status for one in found] == [IN_ALARM, IN_ALARM]


@own_server
async def test_a_customer_that_is_not_evaluated_is_not_listed_in_alarm(ours: Client, clock: ManualClock) -> None:
    """GetCustomerAlert, the list and the summary agree whether a gauge is in alarm."""
    gold = await ours.create(TOKENS + 'scope { plan { plan_id: "gold" } }')
    for name in ("a", "b", "c"):
        await ours.put(customer=f'customer_id: "{name}" plan_id: "gold"')
    await ours.settled(gold.alert_id)
    await ours.use(clock.now(), *(event(number, name) for number, name in enumerate("abc")))
    await ours.disable(gold.alert_id, customer_id="b")
    clock.advance(timedelta(seconds=1))
    await ours.put(customer='customer_id: "c" plan_id: "silver"')
    await ours.settled(gold.alert_id)
    assert shown(await listed(ours, statuses=[IN_ALARM])) == [("a", "tokens", IN_ALARM)]
    totals = await ours.summary()
    assert [(one.alert_id, one.gauge_count, one.customer_count) for one in totals.alerts] == [(gold.alert_id, 1, 1)]
    assert (totals.customer_count, totals.truncated) == (3, False)
    assert [status for _, _, status in shown(await listed(ours))] == [IN_ALARM, NOT_EVALUATED]
    assert [one.customer_id for one in await listed(ours, statuses=[NOT_EVALUATED])] == ["b"]

    await ours.disable(gold.alert_id)
    assert await listed(ours, statuses=[IN_ALARM]) == []
    assert not (await ours.summary()).alerts


@own_server
async def test_a_gauge_of_a_closed_period_is_not_in_alarm(ours: Client, clock: ManualClock) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.settled(alert.alert_id)
    await ours.use(clock.now(), event(1, "a"))
    assert len(await listed(ours, statuses=[IN_ALARM])) == 1
    clock.advance(timedelta(days=32))
    assert await listed(ours, statuses=[IN_ALARM]) == []
    assert not (await ours.summary()).alerts
    assert [one.status for one in await listed(ours)] == [OK]


async def test_a_threshold_reached_silently_is_listed_last_in_alarm(ours: Client, clock: ManualClock) -> None:
    await ours.create(SPEND + ALL)
    await ours.use(clock.now(), event(1, "a"), event(2, "b", rest='cost: "9"'))
    quiet = await ours.create(TOKENS + ALL, evaluate_on_create=False)
    await ours.settled(quiet.alert_id)
    found = await listed(ours, page_size=1, statuses=[IN_ALARM])
    assert [(one.customer_id, one.gauges[0].thresholds[0].silent) for one in found] == [
        ("b", False),
        ("b", True),
        ("a", True),
    ]


@own_server
async def test_states_of_an_older_version_are_listed_and_completed(
    ours: Client, clock: ManualClock, database: Database
) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.settled(alert.alert_id)
    await ours.use(clock.now(), event(1, "a"))
    async with database.transaction() as connection:
        raw = await driver(connection)
        await raw.execute("UPDATE alert_state SET period_end = 'infinity'")
        row = await (await raw.execute("SELECT organization_id FROM alert_state")).fetchone()
        assert row is not None
    assert len(await listed(ours, statuses=[IN_ALARM])) == 1
    clock.advance(timedelta(days=32))
    assert await listed(ours, statuses=[IN_ALARM]) == []
    assert not (await ours.summary()).alerts
    async with database.transaction() as connection:
        assert await alarms.complete(connection, row[0], 10) == 1
        assert await alarms.complete(connection, row[0], 10) == 0


async def test_a_page_of_gauges_in_alarm_skips_gauges_of_disabled_alerts(ours: Client, clock: ManualClock) -> None:
    old, new = (
        await ours.create(TOKENS + ALL),
        await ours.create('display_name: "later"' + TOKENS.removeprefix('display_name: "tokens"') + ALL),
    )
    await ours.settled(old.alert_id, new.alert_id)
    customers = [f"c{number:03}" for number in range(alarms.CHUNK + 50)]
    await ours.use(clock.now(), *(event(number, name) for number, name in enumerate(customers)))
    await ours.disable(new.alert_id)
    # Every second candidate of a statement is skipped.
    found = await listed(ours, statuses=[IN_ALARM], page_size=alarms.CHUNK // 2)
    assert sorted(one.customer_id for one in found) == customers


async def test_pages_of_customers_without_alarm_are_bounded(ours: Client, clock: ManualClock) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.settled(alert.alert_id)
    names = [f"c{number:03}" for number in range(120)]
    await ours.use(clock.now(), *(event(number, name, "1") for number, name in enumerate(names)))
    first = await ours.customer_alerts("", page_size=1000)
    assert (len(first.customer_alerts), bool(first.next_page_token)) == (50, True)
    assert [one.customer_id for one in await listed(ours, page_size=1000)] == names
    assert [one.customer_id for one in await listed(ours, page_size=7)] == names


@own_server
@with_server_limits(ServerLimits(examined_alerts=5))
async def test_pages_of_customers_with_very_many_alerts_of_other_plans_are_bounded(
    ours: Client, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"c{number}" for number in range(4)]
    first = await ours.create(TOKENS + ALL)
    for number in range(12):
        clock.advance(timedelta(seconds=1))
        for name in names:
            await ours.create(
                f'{TOKENS} scope {{ customer_plan {{ customer_id: "{name}" plan_id: "plan-{number}" }} }}'
            )
    clock.advance(timedelta(seconds=1))
    last = await ours.create(SPEND + ALL)
    await ours.settled(first.alert_id, last.alert_id)
    await ours.use(clock.now(), *(event(number, name, "1", 'cost: "1"') for number, name in enumerate(names)))
    reads, read = list[str](), bounded_pages.read

    async def counted(*arguments: Any, **named: Any) -> Any:
        reads.append("read")
        return await read(*arguments, **named)

    monkeypatch.setattr(bounded_pages, "read", counted)
    found, token = list[customer_alert_pb2.CustomerAlert](), ""
    while True:
        reads.clear()
        page = await ours.customer_alerts("", page_token=token)
        assert len(reads) <= 2, "the rest of one customer, and the next one"
        found += page.customer_alerts
        if not (token := page.next_page_token):
            break
    assert shown(found) == [(name, alert, OK) for name in names for alert in ("tokens", "spend")]


@own_server
@with_server_limits(ServerLimits(page_gauges=7))
async def test_a_page_reads_a_bounded_number_of_gauges_of_all_its_customers(ours: Client, clock: ManualClock) -> None:
    """A page ends after the alert with which the bound is reached; no entry is missing or repeated."""
    alerts = [
        await ours.create(
            f'display_name: "seats" usage_threshold_reached {{ metric_id: "tokens" group_values {{ key: "seat" }} }}'
            f' thresholds {{ value: "{level}" }} {ALL}'
        )
        for level in ("100", "200")
    ]
    await ours.settled(*(one.alert_id for one in alerts))
    names = [f"c{number}" for number in range(5)]
    for name in names:
        seats = [f'properties {{ key: "seat" value: "{seat}" }}' for seat in ("a", "b", "c")]
        await ours.use(clock.now(), *(event(number, name, "1", seat) for number, seat in enumerate(seats)))
    sizes, found, token = list[int](), list[tuple[str, str]](), ""
    while True:
        page = await ours.customer_alerts("", page_token=token)
        sizes.append(len(page.customer_alerts))
        assert all(len(one.gauges) == 3 for one in page.customer_alerts)
        found += [(one.customer_id, one.alert.alert_id) for one in page.customer_alerts]
        if not (token := page.next_page_token):
            break
    assert max(sizes) == 3
    in_order = sorted(alerts, key=lambda one: (one.create_time.ToDatetime(), one.alert_id))
    assert found == [(name, one.alert_id) for name in names for one in in_order]


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"statuses": [0]}, ["statuses[0]"]),
        ({"customer_ids": ["a"] * 101}, ["customer_ids"]),
        ({"alert_ids": [""]}, ["alert_ids[0]"]),
        ({"page_size": -1}, ["page_size"]),
        ({"customer_id": "a", "customer_ids": ["b"], "alert_ids": ["x"]}, ["customer_ids", "alert_ids"]),
        ({"customer_id": "a", "statuses": [0]}, ["statuses[0]"]),
    ],
)
async def test_invalid_filters_are_refused_by_name(ours: Client, fields: dict[str, Any], paths: list[str]) -> None:
    async with refused() as answer:
        await ours.customer_alerts(fields.pop("customer_id", ""), **fields)
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.paths == paths


async def test_a_page_token_is_refused_with_other_filters(ours: Client, clock: ManualClock) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.settled(alert.alert_id)
    await ours.use(clock.now(), event(1, "a"), event(2, "b"))
    token = (await ours.customer_alerts("", page_size=1)).next_page_token
    for other in ({"statuses": [IN_ALARM]}, {"customer_ids": ["a"]}, {"alert_ids": [alert.alert_id]}):
        async with refused() as answer:
            await ours.customer_alerts("", page_token=token, **other)
        assert answer.reason == "ERROR_REASON_PAGE_TOKEN_INVALID"
    async with refused() as answer:
        await ours.customer_alerts("a", page_token=token)
    assert answer.reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_the_list_and_the_summary_show_only_the_callers_organization(
    ours: Client, theirs: Client, clock: ManualClock
) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.settled(alert.alert_id)
    await ours.use(clock.now(), event(1, "a"))
    assert await listed(theirs) == []
    assert await theirs.summary() == messages.SummarizeCustomerAlertsResponse()
