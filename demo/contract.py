"""Requests of the demo: facts that are put, alerts that are created, usage events."""

import asyncio
from collections.abc import Iterable
from fractions import Fraction

import grpc

from cli.client.connection import UNARY_TIMEOUT
from demo import definitions
from demo.billing_contract import set_fact_condition
from demo.definitions import AlertDefinition, Customer, Event, decimal_text
from generated.tidemark.v1 import (
    alert_pb2,
    billing_period_pb2,
    customer_pb2,
    filter_pb2,
    metric_pb2,
    scope_pb2,
    subscription_pb2,
)
from generated.tidemark.v1.account_service_pb2 import PutCustomerRequest, PutMetricRequest, PutSubscriptionRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_pb2 import EvaluationStatus
from generated.tidemark.v1.alert_service_pb2 import CreateAlertRequest, GetAlertRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.threshold_pb2 import Threshold, TransitionKind
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.reference import thresholds
from tests.reference.gauges import Metric
from tests.reference.periods import Cycle
from tests.reference.thresholds import REACHED, RESOLVED

POLLING_INTERVAL = 0.05  # seconds between two requests for the status of an alert

_CADENCES = {
    "day": billing_period_pb2.CADENCE_DAY,
    "week": billing_period_pb2.CADENCE_WEEK,
    "month": billing_period_pb2.CADENCE_MONTH,
}
_KINDS = {
    REACHED: TransitionKind.TRANSITION_KIND_REACHED,
    RESOLVED: TransitionKind.TRANSITION_KIND_RESOLVED,
}


async def put_facts(channel: grpc.aio.Channel, customers: Iterable[Customer], metrics: Iterable[Metric]) -> None:
    """Puts the metrics, the customers to be registered, and their subscriptions."""
    stub = AccountServiceStub(channel)
    for metric in metrics:
        aggregation = metric_pb2.Aggregation.Value(f"AGGREGATION_{metric.aggregation}")
        put = metric_pb2.Metric(
            metric_id=metric.metric_id, aggregation=aggregation, unique_property=metric.unique_property
        )
        await stub.PutMetric(PutMetricRequest(metric=put), timeout=UNARY_TIMEOUT)
    for customer in customers:
        if not customer.registered:
            continue
        fact = customer_pb2.Customer(
            customer_id=customer.customer_id,
            plan_id=customer.plan,
            currency=customer.currency,
            billing_cycle=_cycle(customer.cycle),
        )
        await stub.PutCustomer(PutCustomerRequest(customer=fact), timeout=UNARY_TIMEOUT)
        for one in customer.subscriptions:
            subscription = subscription_pb2.Subscription(
                subscription_id=one.subscription_id,
                customer_id=customer.customer_id,
                plan_id=one.plan,
                billing_cycle=_cycle(one.cycle),
            )
            await stub.PutSubscription(PutSubscriptionRequest(subscription=subscription), timeout=UNARY_TIMEOUT)


async def create_alert(channel: grpc.aio.Channel, definition: AlertDefinition) -> str:
    """Creates the alert; returns its id."""
    request = CreateAlertRequest(
        request_id=f"demo/{definition.name}",
        alert=_alert(definition),
        evaluate_on_create=definition.evaluate_on_create,
    )
    response = await AlertServiceStub(channel).CreateAlert(request, timeout=UNARY_TIMEOUT)
    return response.alert.alert_id


async def evaluated(channel: grpc.aio.Channel, alert_id: str) -> None:
    """Waits until the alert is evaluated on all that existed before it."""
    stub = AlertServiceStub(channel)
    while True:
        response = await stub.GetAlert(GetAlertRequest(alert_id=alert_id), timeout=UNARY_TIMEOUT)
        if response.alert.evaluation_status == EvaluationStatus.EVALUATION_STATUS_DONE:
            return
        await asyncio.sleep(POLLING_INTERVAL)


def usage_event(event: Event) -> UsageEvent:
    """The message of an event, with all that is wrong in it."""
    message = UsageEvent(
        event_id=event.event_id,
        customer_id=event.customer,
        subscription_id=event.subscription,
        metric_id=event.metric,
        quantity=event.quantity,
        cost=event.cost,
        currency=event.currency,
        properties=event.properties,
    )
    message.event_time.FromDatetime(event.time)
    return message


def _cycle(cycle: Cycle | None) -> billing_period_pb2.BillingCycle | None:
    if cycle is None:
        return None
    message = billing_period_pb2.BillingCycle(
        cadence=_CADENCES[cycle.cadence], interval_count=cycle.interval, time_zone=cycle.zone
    )
    message.anchor_time.FromDatetime(cycle.anchor)
    return message


def _alert(definition: AlertDefinition) -> alert_pb2.Alert:
    alert = alert_pb2.Alert(
        display_name=definition.name,
        scope=_scope(definition),
        thresholds=[_threshold(one) for one in definition.thresholds],
    )
    selectors = [
        filter_pb2.GroupSelector(key=key) if value is None else filter_pb2.GroupSelector(key=key, value=value)
        for key, value in definition.groups
    ]
    match definition.condition:
        case definitions.SPEND_THRESHOLD_REACHED:
            alert.spend_threshold_reached.currency = definition.measured
            alert.spend_threshold_reached.group_values.extend(selectors)
        case definitions.USAGE_THRESHOLD_REACHED:
            alert.usage_threshold_reached.metric_id = definition.measured
            alert.usage_threshold_reached.group_values.extend(selectors)
        case definitions.USAGE_EXCEEDED:
            alert.usage_exceeded.metric_id = definition.measured
        case definitions.COST_EXCEEDED:
            alert.cost_exceeded.currency = definition.measured
            alert.cost_exceeded.grouping_keys.extend(key for key, _ in definition.groups)
        case definitions.SPEND_EXCEEDED:
            alert.spend_exceeded.currency = definition.measured
        case _:
            set_fact_condition(alert, definition)
    return alert


def _scope(definition: AlertDefinition) -> scope_pb2.AlertScope:
    if definition.plan:
        return scope_pb2.AlertScope(plan=scope_pb2.PlanScope(plan_id=definition.plan))
    if definition.subscription:
        return scope_pb2.AlertScope(
            subscription=scope_pb2.SubscriptionScope(
                customer_id=definition.customer, subscription_id=definition.subscription
            )
        )
    if definition.customer:
        return scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=definition.customer))
    return scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope())


def _threshold(threshold: thresholds.Threshold) -> Threshold:
    return Threshold(
        code=threshold.code,
        value=_text(threshold.value),
        recurring_step=_text(threshold.step),
        resolve_value=_text(threshold.resolve),
        notify_on=[_KINDS[kind] for kind in sorted(threshold.notify_on)],
    )


def _text(value: Fraction | None) -> str:
    return "" if value is None else decimal_text(value)
