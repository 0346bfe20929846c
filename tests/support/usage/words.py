"""Values of the reference model as those of the API and of the service, and back."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from evaluator.amounts import format_decimal
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge, Measure
from evaluator.prices import FilterOperator
from generated.tidemark.v1 import (
    alert_pb2,
    filter_pb2,
    gauge_pb2,
    metric_pb2,
    scope_pb2,
    threshold_pb2,
    transition_pb2,
    usage_pb2,
)
from server.calls.validation import to_timestamp
from tests.reference import alerts as plain_alerts
from tests.reference import gauges as plain_gauges
from tests.reference import thresholds as plain_thresholds
from tests.support.usage.caller import ALL_CUSTOMERS, on_customer, on_customer_plan, on_plan, on_subscription


def event_of(event: plain_gauges.Event) -> UsageEvent:
    """The event as the engine takes it."""
    return UsageEvent(
        event.event_id,
        event.customer,
        event.time,
        event.metric,
        decimal_of(event.quantity),
        event.subscription,
        None if event.cost is None else decimal_of(event.cost),
        event.currency,
        dict(event.properties),
        event.event_name or None,
    )


def message_of(event: plain_gauges.Event) -> usage_pb2.UsageEvent:
    """The event as the API takes it."""
    return usage_pb2.UsageEvent(
        event_id=event.event_id,
        customer_id=event.customer,
        subscription_id=event.subscription or "",
        metric_id=event.metric,
        quantity=_text(event.quantity),
        cost=_text(event.cost),
        currency=event.currency or "",
        event_time=to_timestamp(event.time),
        properties=dict(event.properties),
        event_name=event.event_name,
    )


def metric_of(metric: plain_gauges.Metric) -> metric_pb2.Metric:
    """The metric as the API takes it."""
    return metric_pb2.Metric(
        metric_id=metric.metric_id,
        aggregation=metric_pb2.Aggregation.Value(f"AGGREGATION_{metric.aggregation}"),
        unique_property=metric.unique_property if metric.aggregation == "UNIQUE_COUNT" else "",
        event_name=metric.event_name,
        event_filters=[
            metric_pb2.EventFilter(
                key=key,
                operator=filter_pb2.FILTER_OPERATOR_INCLUDES if included else filter_pb2.FILTER_OPERATOR_EXCLUDES,
                values=values,
            )
            for key, included, values in metric.filters
        ],
        quantity_property=metric.quantity_property,
    )


def gauge_of(gauge: gauge_pb2.Gauge) -> plain_gauges.Gauge:
    """A gauge of an answer as the model has it."""
    filters = gauge.cost.price_filters
    return plain_gauges.Gauge(
        gauge.customer_id,
        gauge.subscription_id or None,
        ("cost", gauge.cost.currency) if gauge.HasField("cost") else ("usage", gauge.usage.metric_id),
        tuple((item.key, item.value) for item in gauge.group),
        gauge.billing_period.start_time.ToDatetime(UTC),
        frozenset(
            (
                filter_pb2.PriceField.Name(one.field).removeprefix("PRICE_FIELD_").lower(),
                one.operator == filter_pb2.FILTER_OPERATOR_INCLUDES,
                frozenset(one.values),
            )
            for one in filters
        ),
        frozenset((one.key, one.value) for one in gauge.cost.custom_field_filters),
    )


def transition_of(transition: transition_pb2.Transition) -> plain_thresholds.Transition:
    """A transition of an answer as the model has it."""
    return plain_thresholds.Transition(
        threshold_pb2.TransitionKind.Name(transition.kind).removeprefix("TRANSITION_KIND_"),
        Fraction(transition.level),
        Fraction(transition.previous_value),
        Fraction(transition.value),
        transition.event_id or None,
    )


def values_of(gauges: Iterable[tuple[Gauge, Decimal]]) -> dict[plain_gauges.Gauge, Fraction]:
    """The gauges of an outcome as the model has them."""
    return {
        plain_gauges.Gauge(
            gauge.customer_id,
            gauge.subscription_id,
            measured_by(gauge.measure),
            gauge.group,
            gauge.period.start,
            prices_of(gauge.measure),
            frozenset(gauge.measure.contract_fields),
        ): Fraction(value)
        for gauge, value in gauges
    }


def measured_by(measure: Measure) -> tuple[str, str]:
    """Usage or cost, and the metric or currency."""
    return ("cost", measure.currency) if measure.currency else ("usage", measure.metric_id or "")


def prices_of(measure: Measure) -> plain_gauges.Prices:
    """The price filters of a measure."""
    return frozenset(
        (item.field.property_name, item.operator is FilterOperator.INCLUDES, frozenset(item.values))
        for item in measure.prices
    )


def decimal_of(number: Fraction) -> Decimal:
    """The exact decimal of a fraction that has a finite decimal form."""
    with localcontext(prec=100):
        return Decimal(number.numerator) / Decimal(number.denominator)


def alert_of(alert: plain_alerts.Alert) -> alert_pb2.Alert:
    """The alert as the API takes it."""
    kind, name = alert.measure
    shown = alert_pb2.Alert(
        display_name="alert", scope=_scope(alert.scope), thresholds=map(_threshold, alert.thresholds)
    )
    if alert.per_subscription and kind == "usage":
        shown.usage_exceeded.metric_id = name
    elif alert.prices and not alert.keys:
        shown.spend_exceeded.currency = name
        shown.spend_exceeded.price_filters.extend(_price_filters(alert.prices))
    elif alert.per_subscription:
        shown.cost_exceeded.currency = name
        shown.cost_exceeded.grouping_keys.extend(key for key, _ in alert.keys)
        shown.cost_exceeded.price_filters.extend(_price_filters(alert.prices))
        for bound, thresholds in alert.overrides:
            shown.cost_exceeded.threshold_overrides.add(
                group_values=[filter_pb2.GroupSelector(key=key, value=value) for key, value in bound],
                thresholds=map(_threshold, thresholds),
            )
    else:
        selectors = [filter_pb2.GroupSelector(key=key, value=value) for key, value in alert.keys]
        if kind == "usage":
            shown.usage_threshold_reached.metric_id = name
            shown.usage_threshold_reached.group_values.extend(selectors)
        else:
            shown.spend_threshold_reached.currency = name
            shown.spend_threshold_reached.group_values.extend(selectors)
            for key, value in sorted(alert.contract):
                shown.spend_threshold_reached.custom_field_filters.add(
                    entity=filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT, key=key, value=value
                )
    return shown


def _price_filters(prices: plain_gauges.Prices) -> list[filter_pb2.PriceFilter]:
    return [
        filter_pb2.PriceFilter(
            field=filter_pb2.PriceField.Value(f"PRICE_FIELD_{field.upper()}"),
            operator=filter_pb2.FILTER_OPERATOR_INCLUDES if taken_in else filter_pb2.FILTER_OPERATOR_EXCLUDES,
            values=sorted(values, reverse=True),
        )
        for field, taken_in, values in sorted(prices)
    ]


def _scope(scope: tuple[str, ...]) -> scope_pb2.AlertScope:
    match scope:
        case ("plan", plan):
            return on_plan(plan)
        case ("customer", customer):
            return on_customer(customer)
        case ("subscription", customer, subscription):
            return on_subscription(subscription, customer)
        case ("customer plan", customer, plan):
            return on_customer_plan(customer, plan)
    return ALL_CUSTOMERS


def _threshold(threshold: plain_thresholds.Threshold) -> threshold_pb2.Threshold:
    return threshold_pb2.Threshold(
        value=_text(threshold.value) if threshold.percent is None else "",
        recurring_step=_text(threshold.step),
        resolve_value=_text(threshold.resolve),
        percent_of_limit=_text(threshold.percent),
        notify_on=[
            threshold_pb2.TransitionKind.Value(f"TRANSITION_KIND_{kind}") for kind in sorted(threshold.notify_on)
        ],
    )


def _text(number: Fraction | None) -> str:
    return "" if number is None else format_decimal(decimal_of(number))


def state_of(reached: dict[str, Any], sequence: int) -> plain_thresholds.State:
    """The model's form of a stored state."""
    state = plain_thresholds.State(sequence=sequence)
    for key, entry in reached.items():
        if key.startswith("every:"):
            step = Fraction(key.removeprefix("every:"))
            state.steps, state.silent_steps = entry["rungs"], entry["silent_rungs"]
            state.stairs = Fraction(entry["level"]) - state.steps * step, step
        elif key.startswith("limit:"):
            percentage = "limit", Fraction(key.removeprefix("limit:"))
            state.past[percentage], state.levels[percentage] = entry.get("silent", False), Fraction(entry["level"])
        else:
            state.past[Fraction(key)] = entry.get("silent", False)
    return state


def notification_of(alert: str, data: dict[str, Any]) -> plain_alerts.Notification:
    """The notification with that `data` in its body."""
    gauge = data["gauge"]
    return plain_alerts.Notification(
        alert,
        plain_gauges.Gauge(
            gauge["customer_id"],
            gauge.get("subscription_id"),
            ("cost", gauge["currency"]) if "currency" in gauge else ("usage", gauge["metric_id"]),
            tuple((pair["key"], pair["value"]) for pair in gauge["group"]),
            datetime.fromisoformat(gauge["period"]["start_time"]),
            frozenset(
                (one["field"].lower(), one["operator"] == "INCLUDES", frozenset(one["values"]))
                for one in gauge.get("price_filters", ())
            ),
            frozenset((one["key"], one["value"]) for one in gauge.get("custom_field_filters", ())),
        ),
        data["sequence"],
        data["late"],
        tuple(
            plain_thresholds.Transition(
                one["kind"],
                Fraction(one["level"]),
                Fraction(one["previous_value"]),
                Fraction(one["value"]),
                one.get("event_id"),
            )
            for one in data["transitions"]
        ),
        frozenset(index for index, one in enumerate(data["transitions"]) if one["furthest"]),
    )
