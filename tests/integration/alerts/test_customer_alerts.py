"""The state of one customer's alerts after real ingest and backfills."""

from datetime import UTC, datetime, timedelta

import grpc

from generated.tidemark.v1 import (
    alert_pb2,
    customer_alert_pb2,
)
from runtime.clock import ManualClock
from server.limits import ServerLimits
from tests.support.alerts.client import Client, refused
from tests.support.server.limits import with_server_limits
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM

ALL = "scope { all_customers {} } "
GOLD = 'scope { plan { plan_id: "gold" } } '
ACME = 'scope { customer { customer_id: "acme" } } '
GLOBEX = 'scope { customer { customer_id: "globex" } } '
PRO = 'scope { subscription { customer_id: "acme" subscription_id: "pro" } } '
TEN = 'display_name: "n" thresholds { value: "10" } '
SPEND = TEN + "spend_threshold_reached {} "
TOKENS = TEN + 'usage_threshold_reached { metric_id: "tokens" } '
EXCEEDED = TEN + 'usage_exceeded { metric_id: "tokens" } '


def event(number: int, quantity: str, customer_id: str = "acme", rest: str = "") -> str:
    return f'event_id: "{number}" customer_id: "{customer_id}" metric_id: "tokens" quantity: "{quantity}" {rest}'


@own_server
async def test_a_customer_alert_shows_the_value_and_the_reached_levels(ours: Client, clock: ManualClock) -> None:
    thresholds = 'thresholds { value: "20" code: "high" } thresholds { recurring_step: "5" } '
    alert = await ours.create(TOKENS + thresholds + ALL)
    await ours.settled(alert.alert_id)
    now = clock.now()
    await ours.use(now, event(1, "9.5"))
    before = await ours.customer_alert(alert.alert_id, "acme")
    assert (before.status, before.no_data) == (OK, False)
    assert [state.in_alarm for state in before.gauges[0].thresholds] == [False, False, False]

    clock.advance(timedelta(seconds=1))
    await ours.use(now, event(2, "0.5"), event(3, "16.000000000000000001"))
    found = await ours.customer_alert(alert.alert_id, "acme")
    assert (found.status, found.customer_id, found.alert.alert_id) == (IN_ALARM, "acme", alert.alert_id)
    (state,) = found.gauges
    assert (state.gauge.value, state.gauge.usage.metric_id) == ("26.000000000000000001", "tokens")
    assert state.gauge.billing_period.start_time.ToDatetime(UTC) == datetime(2026, 3, 1, tzinfo=UTC)
    assert state.gauge.billing_period.end_time.ToDatetime(UTC) == datetime(2026, 4, 1, tzinfo=UTC)
    ten, high, every = state.thresholds
    assert (ten.in_alarm, ten.level, ten.threshold.value) == (True, "10", "10")
    assert (high.in_alarm, high.level, high.threshold.code) == (True, "20", "high")
    assert (every.in_alarm, every.level) == (True, "25")
    assert ten.reached_time.ToDatetime(UTC) == clock.now() == state.change_time.ToDatetime(UTC)
    assert state.change_reason == customer_alert_pb2.CHANGE_REASON_USAGE
    assert state.sequence == 1

    await ours.use(now, event(4, "-26"))
    after = await ours.customer_alert(alert.alert_id, "acme")
    assert (after.status, after.gauges[0].gauge.value) == (OK, "0.000000000000000001")


async def test_a_new_alert_is_evaluated_on_usage_from_before_its_creation(ours: Client, clock: ManualClock) -> None:
    await ours.use(clock.now(), event(1, "12"))
    notifying = await ours.create(TOKENS + ALL)
    silent = await ours.create(TOKENS + ALL, evaluate_on_create=False)
    await ours.settled(notifying.alert_id, silent.alert_id)
    first = await ours.customer_alert(notifying.alert_id, "acme")
    assert (first.status, first.gauges[0].change_reason) == (IN_ALARM, customer_alert_pb2.CHANGE_REASON_EVALUATION)
    assert not first.gauges[0].thresholds[0].silent
    second = await ours.customer_alert(silent.alert_id, "acme")
    assert (second.status, second.gauges[0].sequence) == (IN_ALARM, 0)
    assert second.gauges[0].thresholds[0].silent


async def test_an_alert_in_a_currency_without_usage_has_no_data(ours: Client, clock: ManualClock) -> None:
    euros = await ours.create(SPEND.replace("{} ", '{ currency: "EUR" } ') + ALL)
    dollars = await ours.create(SPEND + ALL)
    await ours.use(clock.now(), event(1, "1", rest='cost: "11"'))
    await ours.settled(euros.alert_id, dollars.alert_id)
    found = await ours.customer_alert(euros.alert_id, "acme")
    assert (found.no_data, found.status, list(found.gauges)) == (True, OK, [])
    found = await ours.customer_alert(dollars.alert_id, "acme")
    assert (found.no_data, found.status, found.gauges[0].gauge.cost.currency) == (False, IN_ALARM, "USD")


async def test_each_group_has_a_gauge_and_those_in_alarm_come_first(ours: Client, clock: ManualClock) -> None:
    groups = '{ metric_id: "tokens" group_values { key: "model" } group_values { key: "zone" value: "eu" } } '
    alert = await ours.create(TEN + "usage_threshold_reached " + groups + ALL)
    await ours.settled(alert.alert_id)

    def of(model: str, zone: str) -> str:
        return f'properties {{ key: "model" value: "{model}" }} properties {{ key: "zone" value: "{zone}" }}'

    await ours.use(
        clock.now(),
        event(1, "1", rest=of("a", "eu")),
        event(2, "10", rest=of("b", "eu")),
        event(3, "99", rest=of("c", "us")),
        event(4, "99"),
    )
    found = await ours.customer_alert(alert.alert_id, "acme")
    shown = [([(pair.key, pair.value) for pair in state.gauge.group], state.gauge.value) for state in found.gauges]
    assert shown == [([("model", "b"), ("zone", "eu")], "10"), ([("model", "a"), ("zone", "eu")], "1")]
    assert (found.status, found.gauges_truncated) == (IN_ALARM, False)


@own_server
async def test_only_the_current_period_counts(ours: Client, clock: ManualClock) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.settled(alert.alert_id)
    await ours.use(clock.now(), event(1, "12"))
    clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    found = await ours.customer_alert(alert.alert_id, "acme")
    assert (found.status, found.no_data) == (OK, True)
    await ours.use(clock.now() - timedelta(seconds=1), event(2, "5"))
    assert (await ours.customer_alert(alert.alert_id, "acme")).no_data
    await ours.use(clock.now(), event(3, "1"))
    (state,) = (await ours.customer_alert(alert.alert_id, "acme")).gauges
    assert (state.gauge.value, state.thresholds[0].in_alarm) == ("1", False)


@own_server
async def test_each_subscription_has_a_gauge_in_its_own_period(ours: Client, clock: ManualClock) -> None:
    cycle = "billing_cycle { anchor_time { seconds: 1767225600 } cadence: CADENCE_DAY } "  # 2026-01-01
    await ours.put(subscription=f'customer_id: "acme" subscription_id: "pro" plan_id: "gold" {cycle}')
    await ours.put(subscription='customer_id: "acme" subscription_id: "team" plan_id: "gold"')
    await ours.put(subscription='customer_id: "acme" subscription_id: "free"')
    plan = await ours.create(EXCEEDED + GOLD)
    pro = await ours.create(EXCEEDED + PRO)
    later = await ours.create(EXCEEDED + PRO.replace("pro", "later"))
    now = clock.now()
    await ours.use(
        now,
        event(1, "1", rest='subscription_id: "team"'),
        event(2, "10", rest='subscription_id: "pro"'),
        event(3, "99", rest='subscription_id: "free"'),
        event(4, "99"),
    )
    found = await ours.customer_alert(plan.alert_id, "acme")
    assert [(state.gauge.subscription_id, state.gauge.value) for state in found.gauges] == [
        ("pro", "10"),
        ("team", "1"),
    ]
    day = found.gauges[0].gauge.billing_period
    assert day.end_time.ToDatetime(UTC) - day.start_time.ToDatetime(UTC) == timedelta(days=1)
    (state,) = (await ours.customer_alert(pro.alert_id, "acme")).gauges
    assert (state.gauge.subscription_id, state.thresholds[0].in_alarm) == ("pro", True)
    assert (await ours.customer_alert(later.alert_id, "acme")).no_data

    clock.advance(timedelta(days=1))
    assert [state.gauge.subscription_id for state in (await ours.customer_alert(plan.alert_id, "acme")).gauges] == [
        "team"
    ]


async def test_a_customer_that_is_not_covered_is_not_found(ours: Client, theirs: Client, clock: ManualClock) -> None:
    await ours.put(customer='customer_id: "globex" plan_id: "gold"')
    await ours.put(subscription='customer_id: "globex" subscription_id: "pro" plan_id: "silver"')
    await ours.use(clock.now(), event(1, "1"))
    everybody = await ours.create(TOKENS + ALL)
    not_acme = [
        await ours.create(TOKENS + GLOBEX),
        await ours.create(TOKENS + GOLD),
        await ours.create(EXCEEDED + GOLD),
        await ours.create(EXCEEDED + PRO.replace("acme", "globex")),
    ]
    for alert in not_acme:
        async with refused() as answer:
            await ours.customer_alert(alert.alert_id, "acme")
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_ALERT_NOT_FOUND")
    # An alert of a plan on subscriptions covers by the plan of the subscription, not of the customer.
    async with refused():
        await ours.customer_alert(not_acme[2].alert_id, "globex")
    for index in (0, 1, 3):
        assert (await ours.customer_alert(not_acme[index].alert_id, "globex")).customer_id == "globex"
    async with refused() as answer:
        await ours.customer_alert(everybody.alert_id, "nobody")
    assert (answer.reason, answer.metadata) == (
        "ERROR_REASON_CUSTOMER_NOT_FOUND",
        {"customer_id": "nobody"},
    )
    async with refused() as answer:
        await theirs.customer_alert(everybody.alert_id, "acme")
    assert answer.reason == "ERROR_REASON_CUSTOMER_NOT_FOUND"
    await theirs.use(clock.now(), event(1, "1"))
    async with refused() as answer:
        await theirs.customer_alert(everybody.alert_id, "acme")
    assert answer.reason == "ERROR_REASON_ALERT_NOT_FOUND"


async def test_an_archived_alert_shows_neither_status_nor_gauges(ours: Client, clock: ManualClock) -> None:
    alert = await ours.create(TOKENS + ALL)
    await ours.use(clock.now(), event(1, "12"))
    await ours.archive(alert.alert_id)
    found = await ours.customer_alert(alert.alert_id, "acme")
    assert found.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED
    assert (list(found.gauges), found.no_data) == ([], False)


@own_server
async def test_the_list_of_a_customer_holds_exactly_the_alerts_that_cover_it(
    ours: Client, theirs: Client, clock: ManualClock
) -> None:
    await ours.put(customer='customer_id: "acme" plan_id: "gold"')
    await ours.put(subscription='customer_id: "acme" subscription_id: "pro" plan_id: "silver"')
    silver = GOLD.replace("gold", "silver")
    alerts = {}
    for name, text in {
        "all": TOKENS + ALL,
        "plan": TOKENS + GOLD,
        "customer": TOKENS + ACME,
        "subscription": EXCEEDED + PRO,
        "subscription to come": EXCEEDED + PRO.replace("pro", "later"),
        "plan of the subscription": EXCEEDED + silver,
        "archived": SPEND + ALL,
        "no: other customer": TOKENS + GLOBEX,
        "no: other plan": TOKENS + silver,
        "no: plan of no subscription": EXCEEDED + GOLD,
        "no: other customer's subscription": EXCEEDED + PRO.replace("acme", "globex"),
    }.items():
        alerts[(await ours.create(text)).alert_id] = name
        clock.advance(timedelta(seconds=1))
    await theirs.create(TOKENS + ALL)
    await ours.archive(next(alert_id for alert_id, name in alerts.items() if name == "archived"))
    covering = [name for name in alerts.values() if not name.startswith("no")]
    await ours.settled(*alerts)

    listed = (await ours.customer_alerts("acme")).customer_alerts
    assert [alerts[found.alert.alert_id] for found in listed] == covering[:-1]
    for found in listed:
        assert found == await ours.customer_alert(found.alert.alert_id, "acme")

    archived = await ours.customer_alerts("acme", states=[alert_pb2.ALERT_STATE_ARCHIVED])
    assert [alerts[found.alert.alert_id] for found in archived.customer_alerts] == ["archived"]

    seen, token = [], ""
    while True:
        page = await ours.customer_alerts(
            "acme", page_size=2, page_token=token, states=alert_pb2.AlertState.values()[1:]
        )
        seen += [alerts[found.alert.alert_id] for found in page.customer_alerts]
        token = page.next_page_token
        if not token:
            break
        async with refused() as answer:
            await ours.customer_alerts("globex", page_size=2, page_token=token)
    assert seen == covering
    assert answer.reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


@own_server
@with_server_limits(ServerLimits(page_gauges=5))
async def test_pages_read_a_bounded_number_of_gauges_and_hold_every_alert(ours: Client, clock: ManualClock) -> None:
    grouped = TOKENS.replace('metric_id: "tokens"', 'metric_id: "tokens" group_values { key: "region" }')
    assert grouped != TOKENS
    alerts = [(await ours.create(one + ALL)).alert_id for one in (TOKENS, grouped, grouped, SPEND, grouped, TOKENS)]
    regions = ("eu", "us", "asia")
    await ours.use(
        clock.now(),
        *(
            event(number, "5", rest=f'properties {{ key: "region" value: "{region}" }}')
            for number, region in enumerate(regions, 1)
        ),
    )
    await ours.settled(*alerts)
    pages, token = list[list[str]](), ""
    while token or not pages:
        page = await ours.customer_alerts("acme", page_token=token)
        for found in page.customer_alerts:
            assert found == await ours.customer_alert(found.alert.alert_id, "acme")
        pages.append([found.alert.alert_id for found in page.customer_alerts])
        token = page.next_page_token
    # All were created at the same moment, so they are in the order of their ids.
    assert [one for page in pages for one in page] == sorted(alerts)
    # The gauges of one metric are counted for each alert that can watch them: three groups and the total.
    assert all(len(set(page) - {alerts[3]}) <= 1 for page in pages)


async def test_listed_values_belong_to_their_alert(ours: Client, clock: ManualClock) -> None:
    tokens, spend = await ours.create(TOKENS + ALL), await ours.create(SPEND + ALL)
    await ours.use(clock.now(), event(1, "12", rest='cost: "3"'))
    await ours.settled(tokens.alert_id, spend.alert_id)
    found = {item.alert.alert_id: item for item in (await ours.customer_alerts("acme")).customer_alerts}
    assert (found[tokens.alert_id].status, found[tokens.alert_id].gauges[0].gauge.value) == (IN_ALARM, "12")
    assert (found[spend.alert_id].status, found[spend.alert_id].gauges[0].gauge.value) == (OK, "3")


async def test_the_list_of_an_unknown_customer_is_refused(ours: Client) -> None:
    async with refused() as answer:
        await ours.customer_alerts("nobody")
    assert answer.reason == "ERROR_REASON_CUSTOMER_NOT_FOUND"
    async with refused() as answer:
        await ours.customer_alerts("acme\n", page_size=-1, states=[0])
    assert answer.paths == ["customer_id", "states[0]", "page_size"]
