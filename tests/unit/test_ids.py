"""Ids and keys that are digests: stored rows contain them, so they must not change."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cli.replay.compiled import compiled
from cli.replay.mapping import RowMapping
from cli.replay.numbers import NumberForm
from cli.replay.rows import Row
from cli.replay.times import TimeReader
from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.definitions import Condition, natural_key
from evaluator.gauges import Gauge, Measure
from evaluator.notifications import DisabledNotification, Notification, RequestedDisabling
from evaluator.periods import Period
from evaluator.thresholds import Direction, Threshold, ThresholdSet
from generated.tidemark.v1.usage_pb2 import UsageEvent
from store.deliveries.deliveries import delivery_id
from store.limits import changes as limit_changes
from store.limits.limits import LimitSubject
from store.notifications import evaluation_failures

NOW = datetime(2026, 3, 15, 12, 30, 0, 5, tzinfo=UTC)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
RULE = AlertRule(
    alert_id="alt_1",
    display_name="Größe",
    version=3,
    condition_type=ConditionType.COST_EXCEEDED,
    scope=Scope(ScopeKind.ALL_CUSTOMERS),
    measure=Measure(currency="USD", per_subscription=True),
    groups=(),
    thresholds=ThresholdSet.of((Threshold(Decimal("10.50"), "block"),), Direction.RISING),
    evaluate_on_create=True,
    changed_epoch=1,
    watching_epoch=1,
    watching_time=NOW,
)
GAUGE = Gauge("acme", "größer", RULE.measure, (("region", "eu"),), MARCH)
NOTIFICATION = Notification("default", RULE, GAUGE, 1, NOW, False, ())
REQUESTED = RequestedDisabling("7", RULE, "acme", "größer", 4, NOW)
DISABLED = DisabledNotification("default", RULE, GAUGE, 5_000, 4, NOW, None)


def row_id() -> str:
    row = {"customer_id": "acme", "metric_id": "calls", "quantity": "1", "event_time": "2026-03-01T10:00:00Z"}
    to_event = compiled(RowMapping(), None, NumberForm().reader(), TimeReader(), are_texts=False)
    return UsageEvent.FromString(to_event(Row(7, 8, row)).content).event_id


def limit_key() -> str:
    return limit_changes.natural_key(LimitSubject("acme", None, "", "calls", (("region", "eu"),)))


def failure_id() -> str:
    return evaluation_failures.event_id(7, "alt_1", NOW)


def alert_key() -> str | None:
    condition = Condition(condition_type=ConditionType.SPEND_EXCEEDED, currency="USD")
    return natural_key(Scope(ScopeKind.CUSTOMER, customer_id="acme"), condition)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: str(GAUGE.gauge_id), "00c26d3f-5436-952c-3d37-adfc9b97728b"),
        (
            lambda: NOTIFICATION.notification_id,
            "ntf_jvqt4qy74d3mowhwri7h2h45du",
        ),
        (
            lambda: DISABLED.notification_id,
            "ntf_suoh4465mnpl3kte54mdl3nyzu",
        ),
        (
            lambda: REQUESTED.notification_id,
            "ntf_ttz4kdcakuxicuyarnhy3bdkki",
        ),
        (lambda: delivery_id(7, "whe_1", "ntf_1"), "whd_6qp72qmbw66tb2zgbg42vdcaiq"),
        (failure_id, "evt_nlvcj32fdrttfjm4xrpl3kxmra"),
        (alert_key, "spend_exceeded/20817af8126f0b8d7f2bb8b7984beef3"),
        (limit_key, "89044e52600ebe15a14fb9d090dba954"),
        (row_id, "row_vda45r4mstvtn3zzxumecewl"),
    ],
)
def test_an_id_has_the_same_value_in_every_version(made: Callable[[], str | None], expected: str) -> None:
    assert made() == expected
