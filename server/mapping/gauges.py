"""Gauges, and the state of an alert for one customer, as answers show them."""

import heapq
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from evaluator.amounts import exact_arithmetic, format_decimal
from evaluator.balances import BalanceReading, BalanceSelection
from evaluator.change_reasons import ChangeReason
from evaluator.definitions import AlertDefinition
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import BALANCE_KEY, EVER, INVOICE_KEY, SEGMENT_KEY, Gauge, Group
from evaluator.periods import Period
from evaluator.thresholds import Threshold, ThresholdSet
from evaluator.transitions import Reached
from generated.tidemark.v1 import (
    billing_period_pb2,
    customer_alert_pb2,
    gauge_pb2,
)
from runtime.turns import Slices
from server.calls.answer_size import DEFAULT_ROOM, fitting_in_slices
from server.calls.validation import to_timestamp
from server.mapping.alerts import alert_message
from server.mapping.fact_conditions import filter_messages
from server.mapping.price_filters import price_filter_messages
from server.mapping.thresholds import threshold_message
from store.views.customer_alerts import CustomerAlert, CustomerAlertStatus, GaugeState

MAX_GAUGES = 100  # of one alert and customer in an answer; fewer where the answer has less room
ORDERED_AT_ONCE = 250  # gauges of one alert that are put in order without a pause

STATUSES: Mapping[CustomerAlertStatus | None, customer_alert_pb2.CustomerAlertStatus.ValueType] = {
    None: customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED,
    CustomerAlertStatus.OK: customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK,
    CustomerAlertStatus.IN_ALARM: customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM,
    CustomerAlertStatus.EVALUATING: customer_alert_pb2.CUSTOMER_ALERT_STATUS_EVALUATING,
}
DISABLED_REASONS: Mapping[ExclusionReason | None, customer_alert_pb2.CustomerAlertDisabledReason.ValueType] = {
    None: customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_NONE,
    ExclusionReason.GROUP_LIMIT: customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT,
    ExclusionReason.REQUESTED: customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED,
}
# By the reason that the evaluation stores.
CHANGE_REASONS: Mapping[str | None, customer_alert_pb2.ChangeReason.ValueType] = {
    None: customer_alert_pb2.CHANGE_REASON_NONE,
    ChangeReason.USAGE: customer_alert_pb2.CHANGE_REASON_USAGE,
    ChangeReason.DEFINITION: customer_alert_pb2.CHANGE_REASON_EVALUATION,
    ChangeReason.FACT: customer_alert_pb2.CHANGE_REASON_FACT,
}


def gauge_message(
    gauge: Gauge, value: Decimal | None, limit: Decimal | None = None, held: Decimal | None = None
) -> gauge_pb2.Gauge:
    """A gauge with its value (None: no data), its effective limit and what is held of it (None: not read)."""
    shown = gauge_pb2.Gauge(
        customer_id=gauge.customer_id,
        subscription_id=gauge.subscription_id or "",
        value="" if value is None else format_decimal(value),
        limit="" if limit is None else format_decimal(limit),
        held="" if held is None else format_decimal(held),
        counts_held=gauge.measure.counts_held,
    )
    if gauge.period != EVER:
        shown.billing_period.CopyFrom(period_message(gauge.period))
    if gauge.measure.days_in_plan:
        shown.plan.SetInParent()
        return shown
    if gauge.measure.balances is not None:
        _write_balances(gauge, gauge.measure.balances, shown)
        return shown
    if gauge.measure.invoices is not None:
        shown.invoices.currency = gauge.measure.currency or ""
        shown.invoices.invoice_id = dict(gauge.group).get(INVOICE_KEY, "")
        return shown
    shown.group.extend(gauge_pb2.GroupValue(key=key, value=text) for key, text in gauge.group)
    if gauge.measure.currency is not None:
        shown.cost.currency = gauge.measure.currency
        shown.cost.price_filters.extend(price_filter_messages(gauge.measure.prices))
        shown.cost.custom_field_filters.extend(filter_messages(gauge.measure.contract_fields))
    else:
        shown.usage.metric_id = gauge.measure.metric_id or ""
    return shown


def _write_balances(gauge: Gauge, selection: BalanceSelection, shown: gauge_pb2.Gauge) -> None:
    shown.balances.reading = gauge_pb2.BalanceReading.Value(f"BALANCE_READING_{selection.reading}")
    if gauge.measure.metric_id is not None:
        shown.balances.quantity.metric_id = gauge.measure.metric_id
    elif selection.any_metric:
        shown.balances.quantity.SetInParent()
    elif gauge.measure.currency is not None:
        shown.balances.spend.currency = gauge.measure.currency
    if selection.reading in (BalanceReading.USED_PERCENT, BalanceReading.DAYS_LEFT):
        of_one = dict(gauge.group)
        shown.balances.balance_id = of_one[BALANCE_KEY]
        shown.balances.segment_number = int(of_one.get(SEGMENT_KEY, 0))
    else:
        shown.group.extend(gauge_pb2.GroupValue(key=key, value=text) for key, text in gauge.group)


def period_message(period: Period) -> billing_period_pb2.BillingPeriod:
    """A billing period."""
    return billing_period_pb2.BillingPeriod(start_time=to_timestamp(period.start), end_time=to_timestamp(period.end))


class GaugePosition(NamedTuple):
    """The position of a gauge in the order of its alert's gauges."""

    is_other: bool  # not in alarm
    subscription_id: str
    group: Group


async def first_in_order(
    gauges: Sequence[GaugeState], count: int, slices: Slices, after: GaugePosition | None = None
) -> list[GaugeState]:
    """The first of an alert's gauges in the order in which answers show them, by `position_of`.

    after: only those after this position. An alert may have thousands, so they are put in order in slices.
    """
    first: list[GaugeState] = []
    for start in range(0, len(gauges), ORDERED_AT_ONCE):
        part = gauges[start : start + ORDERED_AT_ONCE]
        if after is not None:
            part = [item for item in part if position_of(item) > after]
        first = heapq.nsmallest(count, (*first, *part), key=position_of)
        await slices.pause()
    return first


def position_of(item: GaugeState) -> GaugePosition:
    """The position of a gauge in that order: those in alarm first, then by subscription and group."""
    return GaugePosition(not item.state.in_alarm, item.gauge.subscription_id or "", item.gauge.group)


async def customer_alert_message(
    found: CustomerAlert, slices: Slices, room: int = DEFAULT_ROOM, gauges: Sequence[GaugeState] | None = None
) -> customer_alert_pb2.CustomerAlert:
    """The state of an alert for one customer, with the first of its gauges that fit.

    room: bytes for all of it. gauges: those to be shown, and perhaps one more (None: the first MAX_GAUGES).
    """
    shown = customer_alert_pb2.CustomerAlert(
        alert=alert_message(found.definition),
        customer_id=found.customer_id,
        status=STATUSES[found.status],
        no_data=found.no_data,
        disabled_reason=DISABLED_REASONS[found.disabled],
    )
    if found.change_time is not None:
        shown.change_time.CopyFrom(to_timestamp(found.change_time))
    wanted = await first_in_order(found.gauges, MAX_GAUGES, slices) if gauges is None else gauges
    states = (_gauge_state_message(found.definition, item) for item in wanted)
    fit, _ = await fitting_in_slices(states, room - shown.ByteSize(), slices)
    shown.gauges.extend(fit)
    shown.gauges_truncated = len(fit) < (len(found.gauges) if gauges is None else len(gauges))
    return shown


def _gauge_state_message(definition: AlertDefinition, item: GaugeState) -> customer_alert_pb2.GaugeState:
    reached = item.state.reached
    own = definition.condition.condition_type.own_threshold
    direction = definition.condition.condition_type.direction
    thresholds = tuple(definition.thresholds_for(item.gauge.group)) if own is None else (own,)
    shown = customer_alert_pb2.GaugeState(
        gauge=gauge_message(item.gauge, item.value, item.limit, item.held),
        thresholds=[
            threshold_state_message(threshold, reached.get(threshold.key), item.limit) for threshold in thresholds
        ],
        change_reason=CHANGE_REASONS[item.change_reason],
        sequence=item.sequence,
    )
    if item.change_time is not None:
        shown.change_time.CopyFrom(to_timestamp(item.change_time))
    _write_next_level(item, ThresholdSet.of(thresholds, direction), shown)
    return shown


def _write_next_level(item: GaugeState, thresholds: ThresholdSet, shown: customer_alert_pb2.GaugeState) -> None:
    if item.value is None:
        return
    with exact_arithmetic():
        level = thresholds.with_limit(item.limit).next_level(item.value, item.state.reached)
        if level is not None:
            shown.next_level = format_decimal(level)
            shown.next_level_distance = format_decimal(abs(level - item.value))


def threshold_state_message(
    threshold: Threshold, reached: Reached | None, limit: Decimal | None
) -> customer_alert_pb2.ThresholdState:
    """A threshold with its state on a gauge (`reached`: None while it is not reached) that has this limit."""
    shown = customer_alert_pb2.ThresholdState(threshold=threshold_message(threshold), in_alarm=reached is not None)
    if reached is not None:
        shown.level = format_decimal(reached.level)
        shown.reached_time.CopyFrom(to_timestamp(reached.time))
        shown.silent = reached.silent
    elif threshold.percent_of_limit is not None and limit is not None:
        with exact_arithmetic():
            shown.level = format_decimal(threshold.at_limit(limit).value)
    return shown
