"""ExplainCustomerAlert over the wire: the first reason that keeps an alert from notifying."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from generated.tidemark.v1 import alert_pb2, explanation_pb2
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.alerts.client import Client, refused
from tests.support.server.running import Running
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server

ALL = "scope { all_customers {} } "
GOLD = 'scope { plan { plan_id: "gold" } } '
GLOBEX = 'scope { customer { customer_id: "globex" } } '
PRO = 'scope { subscription { customer_id: "acme" subscription_id: "pro" } } '
TEN = 'display_name: "n" thresholds { value: "10" } '
TOKENS = TEN + 'usage_threshold_reached { metric_id: "tokens" } '
SPEND = TEN + 'spend_threshold_reached { currency: "EUR" } '
EXCEEDED = TEN + 'usage_exceeded { metric_id: "tokens" } '
BY_REGION = TEN + 'usage_threshold_reached { metric_id: "tokens" group_values { key: "region" } } '


def event(number: int, quantity: str = "1", rest: str = "", metric: str = "tokens") -> str:
    return f'event_id: "{number}" customer_id: "acme" metric_id: "{metric}" quantity: "{quantity}" {rest}'


def region(value: str) -> str:
    return f'properties {{ key: "region" value: "{value}" }}'


async def created(ours: Client, alert: str, evaluate_on_create: bool | None = None) -> alert_pb2.Alert:
    """Creates an alert, and waits for its backfill."""
    found = await ours.create(alert, evaluate_on_create=evaluate_on_create)
    await ours.settled(found.alert_id)
    return found


def reason(explanation: explanation_pb2.CustomerAlertExplanation) -> str:
    """The reason without its prefix."""
    return short(explanation.reason)


def short(number: explanation_pb2.ExplanationReason.ValueType) -> str:
    return explanation_pb2.ExplanationReason.Name(number).removeprefix("EXPLANATION_REASON_")


async def test_a_value_below_the_threshold_is_not_reached_and_the_next_amount_is_named(
    ours: Client, clock: ManualClock
) -> None:
    alert = await created(ours, TOKENS + ALL)
    await ours.use(clock.now(), event(1, "4"), event(2, "2.5"))
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "NOT_REACHED"
    [gauge] = found.gauges
    assert (gauge.gauge.value, gauge.gauge.usage.metric_id, gauge.aggregation) == ("6.5", "tokens", 1)
    assert gauge.gauge.billing_period.start_time.ToDatetime(UTC) == datetime(2026, 3, 1, tzinfo=UTC)
    assert gauge.billing_cycle.time_zone == "UTC"
    assert gauge.counts_until_time.ToDatetime(UTC) == datetime(2026, 5, 5, tzinfo=UTC)
    assert (gauge.next.level, gauge.next.amount) == ("10", "3.5")
    [threshold] = gauge.thresholds
    assert (threshold.level, threshold.distance, threshold.state.in_alarm) == ("10", "3.5", False)
    counted = found.counted
    assert (counted.event_count, counted.is_complete, counted.last_event_id) == (2, True, "2")
    assert [short(step.reason) for step in found.steps] == ["PASSED"] * 6
    assert "at least 3.5" in found.summary
    assert not found.notifications


async def test_a_reached_threshold_is_notified_with_the_evidence(ours: Client, clock: ManualClock) -> None:
    alert = await created(ours, TOKENS + 'thresholds { value: "20" resolve_value: "15" } ' + ALL)
    outcome = await ours.use(clock.now(), event(1, "4"), event(2, "7"))
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "NOTIFIED"
    [one] = found.notifications
    assert one.notification.notification_id == outcome.transitions[0].notification_id
    [transition] = one.notification.evaluation.transitions
    assert (transition.event_id, transition.previous_value, transition.value) == ("2", "4", "11")
    reached, higher = found.gauges[0].thresholds
    assert reached.notification_id == one.notification.notification_id
    assert (reached.state.in_alarm, reached.distance, higher.distance) == (True, "", "9")
    assert higher.resolve_level == "15"
    assert found.gauges[0].next.amount == "9"
    assert not found.endpoints


async def test_an_alert_of_another_customer_is_explained_by_its_scope(ours: Client, clock: ManualClock) -> None:
    alert = await created(ours, TOKENS + GLOBEX)
    await ours.use(clock.now(), event(1, "40"))
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "OTHER_CUSTOMER"
    assert "'globex'" in found.summary
    assert not found.gauges


async def test_a_customer_on_another_plan_is_not_covered(ours: Client) -> None:
    alert = await created(ours, TOKENS + GOLD)
    await ours.put('customer_id: "acme" plan_id: "silver"')
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "OTHER_PLAN"
    assert "'silver'" in found.summary
    assert "'gold'" in found.summary


async def test_a_customer_without_the_subscription_of_the_alert_has_nothing_to_measure(
    ours: Client, clock: ManualClock
) -> None:
    alert = await created(ours, EXCEEDED + PRO)
    await ours.use(clock.now(), event(1))
    assert reason(await ours.explain(alert.alert_id, "acme")) == "NO_SUBSCRIPTION"
    await ours.use(clock.now(), event(2, "3", 'subscription_id: "pro"'))
    found = await ours.explain(alert.alert_id, "acme", subscription_id="pro")
    assert reason(found) == "NOT_REACHED"
    assert (found.gauges[0].gauge.subscription_id, found.gauges[0].next.amount) == ("pro", "7")


async def test_an_alert_that_was_disabled_after_it_notified_has_notified(ours: Client, clock: ManualClock) -> None:
    alert = await created(ours, BY_REGION + ALL)
    await ours.use(clock.now(), event(1, "40", region("eu")), event(2, "4", region("us")))
    [notified] = (await ours.explain(alert.alert_id, "acme")).notifications
    for disable, arguments in ((ours.disable, ("acme",)), (ours.disable, ()), (ours.archive, ())):
        await disable(alert.alert_id, *arguments)
        found = await ours.explain(alert.alert_id, "acme")
        assert reason(found) == "NOTIFIED"
        assert found.summary.startswith("The alert has notified on 2026-03-15")
        blocking = next(step for step in found.steps if short(step.reason) != "PASSED")
        assert found.summary.endswith(blocking.summary)
        assert short(blocking.reason) in ("DISABLED_FOR_CUSTOMER", "ALERT_DISABLED", "ALERT_ARCHIVED")
        assert notified.notification.notification_id in [
            one.notification.notification_id for one in found.notifications
        ]
        of_other_group = await ours.explain(alert.alert_id, "acme", group=[{"key": "region", "value": "us"}])
        assert reason(of_other_group) == short(blocking.reason)
    before = to_timestamp(clock.now() - timedelta(days=30))
    of_other_period = await ours.explain(alert.alert_id, "acme", period_time=before)
    assert reason(of_other_period) == "ALERT_ARCHIVED"


async def test_an_alert_that_was_disabled_after_its_threshold_was_resolved_has_not_notified(
    ours: Client, clock: ManualClock
) -> None:
    both = 'thresholds { value: "10" notify_on: [TRANSITION_KIND_REACHED, TRANSITION_KIND_RESOLVED] } '
    alert = await created(ours, f'display_name: "n" {both} usage_threshold_reached {{ metric_id: "tokens" }} {ALL}')
    await ours.use(clock.now(), event(1, "40"))
    await ours.use(clock.now(), event(2, "-35"))
    await ours.disable(alert.alert_id)
    found = await ours.explain(alert.alert_id, "acme")
    assert (reason(found), len(found.notifications)) == ("ALERT_DISABLED", 2)


async def test_a_disabled_and_an_archived_alert_are_explained_by_their_state(
    ours: Client, clock: ManualClock
) -> None:
    alert = await created(ours, TOKENS + ALL)
    await ours.use(clock.now(), event(1, "4"))
    await ours.disable(alert.alert_id)
    assert reason(await ours.explain(alert.alert_id, "acme")) == "ALERT_DISABLED"
    await ours.archive(alert.alert_id)
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "ALERT_ARCHIVED"
    assert "2026-03-15" in found.summary


async def test_an_alert_that_is_disabled_for_a_customer_is_explained_by_the_exclusion(
    ours: Client, clock: ManualClock
) -> None:
    alert = await created(ours, TOKENS + ALL)
    await ours.use(clock.now(), event(1, "4"))
    await ours.disable(alert.alert_id, "acme")
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "DISABLED_FOR_CUSTOMER"
    assert [short(step.reason) for step in found.steps] == ["PASSED", "PASSED", "DISABLED_FOR_CUSTOMER"]


async def test_usage_of_another_metric_or_currency_is_another_unit(ours: Client, clock: ManualClock) -> None:
    tokens, spend = await created(ours, TOKENS + ALL), await created(ours, SPEND + ALL)
    await ours.put('customer_id: "acme"')
    assert reason(await ours.explain(tokens.alert_id, "acme")) == "METRIC_UNKNOWN"
    assert reason(await ours.explain(spend.alert_id, "acme")) == "NOTHING_COUNTED"
    await ours.use(clock.now(), event(1, "50", 'cost: "99" currency: "USD"', metric="calls"))
    assert reason(await ours.explain(tokens.alert_id, "acme")) == "METRIC_UNKNOWN"
    found = await ours.explain(spend.alert_id, "acme")
    assert reason(found) == "OTHER_UNIT"
    assert (list(found.counted.other_units), found.counted.other_unit_count) == (["USD"], 1)
    await ours.use(clock.now(), 'event_id: "9" customer_id: "globex" metric_id: "tokens" quantity: "1"')
    found = await ours.explain(tokens.alert_id, "acme")
    assert reason(found) == "OTHER_UNIT"
    assert list(found.counted.other_units) == ["calls"]


async def test_usage_without_the_properties_of_the_groups_moves_no_gauge(ours: Client, clock: ManualClock) -> None:
    alert = await created(ours, BY_REGION + ALL)
    await ours.use(clock.now(), event(1, "50"))
    found = await ours.explain(alert.alert_id, "acme")
    assert (reason(found), found.counted.ungrouped_count) == ("NOT_GROUPED", 1)
    assert "'region'" in found.summary
    await ours.use(clock.now(), event(2, "3", 'properties { key: "region" value: "eu" }'))
    found = await ours.explain(alert.alert_id, "acme")
    assert (reason(found), found.group_count, found.group_limit) == ("NOT_REACHED", 1, 5000)
    assert found.gauges[0].gauge.group[0].value == "eu"
    new = await ours.explain(alert.alert_id, "acme", group=[{"key": "region", "value": "us"}])
    assert (short(new.gauges[0].reason), new.gauges[0].next.amount) == ("NOTHING_COUNTED", "10")


async def test_usage_with_another_value_of_the_group_is_explained_by_the_filters(
    ours: Client, clock: ManualClock
) -> None:
    only_eu = TEN + 'usage_threshold_reached { metric_id: "tokens" group_values { key: "region" value: "eu" } } '
    alert, divided = await created(ours, only_eu + ALL), await created(ours, BY_REGION + ALL)
    await ours.use(clock.now(), event(1, "50", 'properties { key: "region" value: "us" }'))
    found = await ours.explain(alert.alert_id, "acme")
    assert (reason(found), found.counted.event_count, found.counted.filtered_count) == ("FILTERED", 0, 1)
    found = await ours.explain(divided.alert_id, "acme", group=[{"key": "region", "value": "eu"}])
    assert (reason(found), found.counted.event_count, found.counted.filtered_count) == ("FILTERED", 0, 1)
    await ours.use(clock.now(), event(2, "4", 'properties { key: "region" value: "eu" }'))
    for each in (alert, divided):
        found = await ours.explain(each.alert_id, "acme", group=[{"key": "region", "value": "eu"}])
        assert (reason(found), found.counted.event_count, found.counted.filtered_count) == ("NOT_REACHED", 1, 1)


async def test_usage_that_does_not_pass_the_filters_is_explained_by_them(ours: Client, clock: ManualClock) -> None:
    filtered = TEN + (
        'cost_exceeded { currency: "EUR" price_filters { field: PRICE_FIELD_PRICE_ID operator:'
        ' FILTER_OPERATOR_INCLUDES values: "p1" } } '
    )
    alert = await created(ours, filtered + 'scope { plan { plan_id: "gold" } } ')
    await ours.put(subscription='customer_id: "acme" subscription_id: "pro" plan_id: "gold"')
    await ours.use(clock.now(), event(1, "1", 'cost: "99" currency: "EUR" subscription_id: "pro"'))
    found = await ours.explain(alert.alert_id, "acme")
    assert (reason(found), found.counted.filtered_count) == ("FILTERED", 1)


async def test_percentages_without_a_limit_are_explained_by_the_limit(ours: Client, clock: ManualClock) -> None:
    alert = await created(
        ours,
        'display_name: "n" thresholds { percent_of_limit: "80" } usage_threshold_reached { metric_id: "tokens" } '
        + ALL,
    )
    await ours.use(clock.now(), event(1, "50"))
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "NO_LIMIT"
    assert not found.gauges[0].thresholds[0].level
    assert not found.gauges[0].HasField("next")


async def test_a_limit_is_explained_with_its_source(ours: Client, clock: ManualClock) -> None:
    alert = await created(
        ours,
        'display_name: "n" thresholds { percent_of_limit: "80" } usage_threshold_reached { metric_id: "tokens" } '
        + ALL,
    )
    await ours.put('customer_id: "acme" plan_id: "gold"')
    of_plan = 'limit_id: "g" plan { plan_id: "gold" } quantity { metric_id: "tokens" } amount: "100"'
    await ours.put(limit=of_plan)
    await ours.use(clock.now(), event(1, "50"))
    [gauge] = (await ours.explain(alert.alert_id, "acme")).gauges
    assert (gauge.limit.amount, gauge.limit.plan_id, gauge.next.amount) == ("100", "gold", "30")
    own = 'limit_id: "a" customer { customer_id: "acme" } quantity { metric_id: "tokens" } amount: "200"'
    await ours.put(limit=own)
    [gauge] = (await ours.explain(alert.alert_id, "acme")).gauges
    assert (gauge.limit.amount, gauge.limit.plan_id, gauge.next.amount) == ("200", "", "110")
    assert gauge.thresholds[0].level == "160"


async def test_a_threshold_that_was_reached_before_a_silent_alert_is_silent(ours: Client, clock: ManualClock) -> None:
    await ours.use(clock.now(), event(1, "12"))
    alert = await created(ours, TOKENS + ALL, evaluate_on_create=False)
    found = await ours.explain(alert.alert_id, "acme")
    assert reason(found) == "REACHED_SILENTLY"
    assert "evaluate_on_create" in found.summary


async def test_a_threshold_that_only_notifies_of_resolving_is_not_requested(ours: Client, clock: ManualClock) -> None:
    alert = await created(
        ours,
        'display_name: "n" thresholds { value: "10" notify_on: TRANSITION_KIND_RESOLVED } '
        'usage_threshold_reached { metric_id: "tokens" } ' + ALL,
    )
    await ours.use(clock.now(), event(1, "12"))
    assert reason(await ours.explain(alert.alert_id, "acme")) == "NOT_REQUESTED"


@own_server
async def test_a_past_period_is_explained_and_is_over_after_its_grace(ours: Client, clock: ManualClock) -> None:
    alert = await created(ours, TOKENS + ALL)
    start = clock.now()
    await ours.use(start, event(1, "4"))
    clock.set(datetime(2026, 4, 10, tzinfo=UTC))
    await ours.use(start, event(2, "1"))
    late = await ours.explain(alert.alert_id, "acme", period_time=start)
    assert (reason(late), late.gauges[0].gauge.value, late.counted.late_count) == ("NOT_REACHED", "5", 1)
    assert "late events" in late.steps[4].summary
    assert reason(await ours.explain(alert.alert_id, "acme")) == "NOTHING_COUNTED"
    clock.set(datetime(2026, 5, 6, tzinfo=UTC))
    over = await ours.explain(alert.alert_id, "acme", period_time=start)
    assert reason(over) == "PERIOD_OVER"
    assert over.gauges[0].gauge.value == "5"


async def test_alerts_on_facts_are_explained_by_their_values(ours: Client, clock: ManualClock) -> None:
    named = TEN + 'scope { customer { customer_id: "acme" } } '
    low = await created(ours, TEN + 'low_credit_balance_reached { currency: "EUR" } ' + ALL)
    depleted = await created(
        ours,
        'display_name: "n" credit_balance_depleted { currency: "EUR" } scope { customer { customer_id: "acme" } } ',
    )
    days = await created(ours, named + "low_remaining_days_in_plan_reached {} ")
    invoice = await created(ours, named + 'invoice_total_reached { currency: "EUR" } ')
    await ours.put('customer_id: "acme"')
    found = await ours.explain(low.alert_id, "acme")
    assert (reason(found), found.gauges[0].gauge.value) == ("NOTIFIED", "0")
    assert found.notifications[0].notification.evaluation.gauge.balances.spend.currency == "EUR"
    empty = await ours.explain(depleted.alert_id, "acme")
    assert (reason(empty), "only of changes" in empty.summary) == ("REACHED_SILENTLY", True)
    nothing = await ours.explain(days.alert_id, "acme")
    assert (reason(nothing), "plan_end_time" in nothing.summary) == ("NOTHING_COUNTED", True)
    invoices = await ours.explain(invoice.alert_id, "acme")
    assert (reason(invoices), "invoices" in invoices.summary) == ("NOTHING_COUNTED", True)
    end = clock.now() + timedelta(days=30)
    await ours.put(f'customer_id: "acme" plan_id: "gold" plan_end_time {{ seconds: {int(end.timestamp())} }}')
    left = await ours.explain(days.alert_id, "acme")
    assert (reason(left), left.gauges[0].gauge.value, left.gauges[0].next.level) == ("NOT_REACHED", "30", "10")
    assert not left.gauges[0].next.amount


async def test_unknown_alerts_and_customers_and_bad_fields_are_refused(ours: Client, theirs: Client) -> None:
    alert = await created(ours, TOKENS + ALL)
    async with refused() as error:
        await ours.explain(alert.alert_id, "unknown")
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_CUSTOMER_NOT_FOUND")
    await ours.put('customer_id: "acme"')
    async with refused() as error:
        await ours.explain("alt_unknown", "acme")
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_ALERT_NOT_FOUND")
    await theirs.put('customer_id: "acme"')
    async with refused() as error:
        await theirs.explain(alert.alert_id, "acme")
    assert error.reason == "ERROR_REASON_ALERT_NOT_FOUND"
    async with refused() as error:
        await ours.explain(alert.alert_id, "acme", subscription_id="pro")
    assert error.paths == ["subscription_id"]
    async with refused() as error:
        await ours.explain("", "a\n", group=[{"key": ""}])
    assert error.paths == ["group[0].key", "alert_id", "customer_id"]


@own_server
async def test_a_key_of_one_customer_sees_its_own_explanation_without_endpoints(
    server: Running, database: Database, clock: ManualClock, ours: Client
) -> None:
    async with database.transaction() as connection:
        limited = KeySettings(roles=frozenset({Role.READER}), customer_id="acme")
        own = await keys.create_key(connection, "ours", clock.now(), limited)
    wide, other = await created(ours, TOKENS + ALL), await created(ours, TOKENS + GLOBEX)
    await ours.use(clock.now(), event(1, "12"))
    client = Client(server.channel, own.key)
    found = await client.explain(wide.alert_id, "acme")
    assert (reason(found), len(found.notifications)) == ("NOTIFIED", 1)
    async with refused() as error:
        await client.explain(other.alert_id, "acme")
    assert error.reason == "ERROR_REASON_ALERT_NOT_FOUND"
    texts = set()
    for alert_id in (other.alert_id, "alt_unknown"):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await client.explain(alert_id, "acme")
        texts.add((failed.value.details() or "").replace(alert_id, "…"))
    assert len(texts) == 1
    async with refused() as error:
        await client.explain(wide.alert_id, "globex")
    assert error.reason == "ERROR_REASON_OTHER_CUSTOMER"


@own_server
@pytest.mark.parametrize("seconds", [0, 5])
async def test_an_explanation_survives_a_time_at_the_limits_of_the_calendar(
    ours: Client, clock: ManualClock, seconds: int
) -> None:
    alert = await created(ours, TOKENS + ALL)
    await ours.put('customer_id: "acme"')
    clock.advance(timedelta(seconds=seconds))
    for time in (datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)):
        found = await ours.explain(alert.alert_id, "acme", period_time=time)
        assert found.steps
