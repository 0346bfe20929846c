"""The demo's made-up month."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from demo import scenario
from demo.definitions import SUBSCRIPTION_CONDITIONS
from demo.expectation import CONFLICT, DUPLICATE, Expectation
from demo.traffic import DAYS, Traffic

NOW = datetime(2026, 11, 21, 21, 30, tzinfo=UTC)
SETTING = scenario.month(NOW)


def traffic(seed: int = 1, count: int = 2_000) -> Traffic:
    return Traffic(SETTING.customers, NOW, count, seed)


def test_a_seed_makes_the_same_month_every_time() -> None:
    assert list(traffic()) == list(traffic())
    assert list(traffic(seed=2)) != list(traffic())


def test_a_month_holds_everything_that_can_go_wrong() -> None:
    sent = list(traffic())
    reasons = Counter(one.reason for one in sent)
    assert set(reasons) == {"", "EVENT_CONFLICT", "EVENT_INVALID", "EVENT_IN_FUTURE", "EVENT_TOO_OLD"}
    model = Expectation(SETTING.customers, SETTING.metrics, NOW)
    verdicts = [model.send(one.event) for one in sent if not one.reason]
    assert 0.01 < verdicts.count(DUPLICATE) / len(verdicts) < 0.05
    assert CONFLICT not in verdicts
    times = [one.event.time for one in sent if not one.reason]
    assert any(later < earlier for earlier, later in pairwise(times))
    assert any(one.event.quantity.startswith("-") for one in sent)


def test_a_conflict_repeats_an_id_with_other_content() -> None:
    model = Expectation(SETTING.customers, SETTING.metrics, NOW)
    found = [model.send(one.event) for one in traffic() if one.reason in ("", "EVENT_CONFLICT")]
    assert found.count(CONFLICT) == sum(one.reason == "EVENT_CONFLICT" for one in traffic())


def test_what_counts_lies_within_the_month() -> None:
    for one in traffic():
        if not one.reason:
            assert NOW - timedelta(days=DAYS) <= one.event.time <= NOW


def test_every_registered_customer_begins_a_new_period_within_the_month() -> None:
    model = Expectation(SETTING.customers, SETTING.metrics, NOW)
    for customer in SETTING.customers:
        if customer.registered:
            starts = {
                model.period_start(customer.customer_id, NOW - timedelta(days=days)) for days in range(DAYS + 1)
            }
            assert len(starts) >= 2, customer.customer_id


def test_the_alerts_are_of_every_evaluated_type_and_scope() -> None:
    alerts = SETTING.alerts + SETTING.later_alerts
    assert len({alert.name for alert in alerts}) == len(alerts)
    assert {alert.condition for alert in alerts} == {
        "spend_threshold_reached",
        "usage_threshold_reached",
        *SUBSCRIPTION_CONDITIONS,
    }
    scopes = {(bool(one.plan), bool(one.customer), bool(one.subscription)) for one in alerts}
    assert scopes == {(False, False, False), (True, False, False), (False, True, False), (False, True, True)}
    values = {value for alert in alerts for _, value in alert.groups}
    assert None in values
    assert values - {None}
