"""Rows of the table of `tidemark watch`."""

from decimal import Decimal

from cli.watch.state_rows import DISABLED, EVALUATING, IN_ALARM, NO_DATA, OK, StateRow, sort_rows, state_rows
from generated.tidemark.v1.alert_pb2 import Alert
from generated.tidemark.v1.customer_alert_pb2 import (
    CustomerAlert,
    CustomerAlertDisabledReason,
    CustomerAlertStatus,
    GaugeState,
    ThresholdState,
)
from generated.tidemark.v1.filter_pb2 import FilterOperator, PriceField, PriceFilter
from generated.tidemark.v1.gauge_pb2 import CostMeasure, Gauge, GroupValue, UsageMeasure
from generated.tidemark.v1.threshold_pb2 import Threshold

STATUS_OK = CustomerAlertStatus.CUSTOMER_ALERT_STATUS_OK


def gauge(value: str, *thresholds: ThresholdState, subscription: str = "") -> GaugeState:
    return GaugeState(
        gauge=Gauge(
            customer_id="acme",
            subscription_id=subscription,
            usage=UsageMeasure(metric_id="tokens"),
            group=[GroupValue(key="region", value="eu")],
            value=value,
        ),
        thresholds=thresholds,
    )


def fixed(value: str, *, level: str = "", code: str = "") -> ThresholdState:
    return ThresholdState(threshold=Threshold(value=value, code=code), in_alarm=bool(level), level=level)


def recurring(step: str, *, level: str = "") -> ThresholdState:
    return ThresholdState(threshold=Threshold(recurring_step=step), in_alarm=bool(level), level=level)


def state(
    *gauges: GaugeState, status: CustomerAlertStatus.ValueType = STATUS_OK, no_data: bool = False
) -> CustomerAlert:
    return CustomerAlert(
        alert=Alert(display_name="Tokens"), customer_id="acme", status=status, gauges=gauges, no_data=no_data
    )


def test_gauge_becomes_a_row_with_its_next_level() -> None:
    (row,) = state_rows(state(gauge("50", fixed("40", level="40", code="warn"), fixed("100"), subscription="main")))
    assert row.status == IN_ALARM
    assert (row.customer, row.measure) == ("acme/main", "tokens region=eu")
    assert row.value == 50
    assert row.next_level == 100
    assert row.nearness == Decimal("0.5")
    assert row.reached == ("warn 40",)


def test_next_level_of_a_recurring_threshold_is_one_step_above_the_reached_level() -> None:
    (before,) = state_rows(state(gauge("3", recurring("10"))))
    (after,) = state_rows(state(gauge("123", fixed("100", level="100"), recurring("10", level="120"))))
    assert [before.status, after.status] == [OK, IN_ALARM]
    assert [before.next_level, after.next_level] == [10, 130]


def test_gauge_whose_thresholds_are_all_reached_has_no_next_level() -> None:
    (row,) = state_rows(state(gauge("50", fixed("40", level="40"))))
    assert row.next_level is None
    assert row.nearness == 0


def test_alert_without_gauges_has_a_row_with_the_reason() -> None:
    evaluating = CustomerAlertStatus.CUSTOMER_ALERT_STATUS_EVALUATING
    assert [row.status for row in state_rows(state(no_data=True))] == [NO_DATA]
    assert [row.status for row in state_rows(state(status=evaluating, no_data=True))] == [EVALUATING]
    assert [row.status for row in state_rows(state(gauge("1", fixed("2")), status=evaluating))] == [EVALUATING]


def test_alert_that_is_disabled_for_the_customer_has_the_status_disabled() -> None:
    disabled = state(status=CustomerAlertStatus.CUSTOMER_ALERT_STATUS_UNSPECIFIED)
    disabled.disabled_reason = CustomerAlertDisabledReason.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT
    assert [row.status for row in state_rows(disabled)] == [DISABLED]


def test_gauge_of_some_prices_shows_its_price_filters() -> None:
    filters = [
        PriceFilter(
            field=PriceField.PRICE_FIELD_PRICE_ID,
            operator=FilterOperator.FILTER_OPERATOR_INCLUDES,
            values=["cpu", "gpu"],
        ),
        PriceFilter(
            field=PriceField.PRICE_FIELD_PRICE_TYPE,
            operator=FilterOperator.FILTER_OPERATOR_EXCLUDES,
            values=["fixed"],
        ),
    ]
    cost = CostMeasure(currency="USD", price_filters=filters)
    some = GaugeState(gauge=Gauge(customer_id="acme", cost=cost, value="1"))
    assert [row.measure for row in state_rows(state(some))] == ["USD price_id=cpu|gpu price_type≠fixed"]


def test_rows_are_sorted_by_alarm_then_by_nearness_to_the_next_level() -> None:
    found = [
        StateRow(NO_DATA, "a", "x"),
        StateRow(OK, "b", "x", value=Decimal(1), next_level=Decimal(10)),
        StateRow(OK, "c", "x", value=Decimal(9), next_level=Decimal(10)),
        StateRow(IN_ALARM, "d", "x", value=Decimal(1), next_level=Decimal(10)),
        StateRow(OK, "e", "x", value=Decimal(-5), next_level=Decimal(-1)),
    ]
    assert [row.customer for row in sort_rows(found)] == ["d", "c", "b", "e", "a"]
