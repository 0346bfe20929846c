"""Customers, subscriptions and metrics as messages of the contract, and the checks of what callers send."""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from evaluator.aggregation import Aggregation
from evaluator.periods import BillingCycle, Cadence, Period, cycle_problems
from generated.tidemark.v1 import (
    billing_period_pb2,
    customer_pb2,
    metric_pb2,
    subscription_pb2,
)
from server.calls.validation import Violations, to_timestamp
from server.mapping.event_filters import event_filter_messages
from store.accounts.customers import StoredCustomer
from store.accounts.metrics import StoredMetric
from store.accounts.subscriptions import StoredSubscription

MAX_ALIASES = 20  # of one customer

_CADENCES = {
    Cadence.DAY: billing_period_pb2.CADENCE_DAY,
    Cadence.WEEK: billing_period_pb2.CADENCE_WEEK,
    Cadence.MONTH: billing_period_pb2.CADENCE_MONTH,
    Cadence.QUARTER: billing_period_pb2.CADENCE_QUARTER,
    Cadence.YEAR: billing_period_pb2.CADENCE_YEAR,
}
AGGREGATIONS = {
    Aggregation.SUM: metric_pb2.AGGREGATION_SUM,
    Aggregation.COUNT: metric_pb2.AGGREGATION_COUNT,
    Aggregation.MAX: metric_pb2.AGGREGATION_MAX,
    Aggregation.LATEST: metric_pb2.AGGREGATION_LATEST,
    Aggregation.UNIQUE_COUNT: metric_pb2.AGGREGATION_UNIQUE_COUNT,
}
_CYCLE_FIELDS = {"anchor": "anchor_time", "interval_count": "interval_count", "time_zone": "time_zone"}


def read_cycle(
    violations: Violations, path: str, message: customer_pb2.Customer | subscription_pb2.Subscription
) -> BillingCycle | None:
    """The billing cycle that was sent; None when none was, or not a right one."""
    if not message.HasField("billing_cycle"):
        return None
    path += ".billing_cycle"
    sent = message.billing_cycle
    found = len(violations.found)
    cadence = next((cadence for cadence, number in _CADENCES.items() if number == sent.cadence), None)
    if cadence is None:
        problem = f"there is no cadence {sent.cadence}" if sent.cadence else "it is required"
        violations.add(f"{path}.cadence", problem)
    if not sent.HasField("anchor_time"):
        violations.add(f"{path}.anchor_time", "it is required")
    anchor = violations.time(f"{path}.anchor_time", sent.anchor_time)
    interval_count = sent.interval_count or 1
    zone = sent.time_zone or "UTC"
    for error in cycle_problems(anchor, interval_count, zone):
        violations.add(f"{path}.{_CYCLE_FIELDS[error.field]}", str(error))
    if cadence is None or len(violations.found) > found:
        return None
    return BillingCycle(anchor, cadence, interval_count, zone)


def read_plan_times(
    violations: Violations, path: str, message: customer_pb2.Customer | subscription_pb2.Subscription
) -> tuple[datetime | None, datetime | None]:
    """When the time on the plan began and ends; unset where the caller does not say."""
    start = end = None
    if message.HasField("plan_start_time"):
        start = violations.time(f"{path}.plan_start_time", message.plan_start_time)
        if not message.plan_id:
            violations.add(f"{path}.plan_start_time", "there is no plan_id that it could be of")
    if message.HasField("plan_end_time"):
        end = violations.time(f"{path}.plan_end_time", message.plan_end_time)
        if not message.plan_id:
            violations.add(f"{path}.plan_end_time", "there is no plan_id that it could be of")
        elif start is not None and end <= start:
            violations.add(f"{path}.plan_end_time", "it is not after plan_start_time")
    return start, end


def read_as_of_time(
    violations: Violations,
    path: str,
    message: customer_pb2.Customer | subscription_pb2.Subscription | metric_pb2.Metric,
    now: datetime,
) -> datetime:
    """When the fact was known; `now` when the caller does not say.

    A time far ahead is refused: nothing could ever replace a fact of the year 9999.
    """
    if not message.HasField("as_of_time"):
        return now
    return violations.past_time(f"{path}.as_of_time", message.as_of_time, now)


def read_aliases(violations: Violations, path: str, sent: Sequence[str]) -> tuple[str, ...]:
    """The aliases that were sent, sorted."""
    if len(sent) > MAX_ALIASES:
        violations.add(path, f"there are {len(sent)}; a customer has at most {MAX_ALIASES}")
    for index, alias in enumerate(sent[:MAX_ALIASES]):
        violations.identifier(f"{path}[{index}]", alias)
        if alias in sent[:index]:
            violations.add(f"{path}[{index}]", "it was named before")
    return tuple(sorted(sent))


def read_aggregation(violations: Violations, path: str, number: metric_pb2.Aggregation.ValueType) -> Aggregation:
    """The aggregation that was sent; SUM when none was."""
    if number == metric_pb2.AGGREGATION_UNSPECIFIED:
        return Aggregation.SUM
    for aggregation, known in AGGREGATIONS.items():
        if known == number:
            return aggregation
    violations.add(path, f"there is no aggregation {number}")
    return Aggregation.SUM


def aggregation_name(aggregation: Aggregation) -> str:
    """The name of the contract for an aggregation."""
    return metric_pb2.Aggregation.Name(AGGREGATIONS[aggregation])


def customer_message(customer: StoredCustomer, now: datetime) -> customer_pb2.Customer:
    """The message for a customer, with the billing period at `now`."""
    return customer_pb2.Customer(
        customer_id=customer.customer_id,
        display_name=customer.display_name,
        external_id=customer.external_id or "",
        aliases=customer.aliases,
        plan_id=customer.plan_id or "",
        currency=customer.currency,
        billing_cycle=cycle_message(customer.cycle),
        current_billing_period=_period_message(customer.cycle.period_at(now)),
        as_of_time=_optional(customer.as_of_time),
        create_time=to_timestamp(customer.create_time),
        update_time=to_timestamp(customer.update_time),
        custom_fields=customer.custom_fields,
        plan_start_time=_optional(customer.plan_start_time),
        plan_end_time=_optional(customer.plan_end_time),
        parent_customer_id=customer.parent_customer_id or "",
    )


def subscription_message(subscription: StoredSubscription, now: datetime) -> subscription_pb2.Subscription:
    """The message for a subscription, with the billing period at `now` of its own or its customer's cycle."""
    cycle = subscription.cycle or subscription.customer_cycle
    return subscription_pb2.Subscription(
        subscription_id=subscription.subscription_id,
        customer_id=subscription.customer_id,
        display_name=subscription.display_name,
        plan_id=subscription.plan_id or "",
        currency=subscription.currency or "",
        billing_cycle=None if subscription.cycle is None else cycle_message(subscription.cycle),
        current_billing_period=_period_message(cycle.period_at(now)),
        start_time=_optional(subscription.start_time),
        end_time=_optional(subscription.end_time),
        as_of_time=_optional(subscription.as_of_time),
        create_time=to_timestamp(subscription.create_time),
        update_time=to_timestamp(subscription.update_time),
        custom_fields=subscription.custom_fields,
        plan_start_time=_optional(subscription.plan_start_time),
        plan_end_time=_optional(subscription.plan_end_time),
    )


def metric_message(metric: StoredMetric) -> metric_pb2.Metric:
    """The message for a metric."""
    return metric_pb2.Metric(
        metric_id=metric.metric_id,
        display_name=metric.display_name,
        aggregation=AGGREGATIONS[metric.aggregation],
        unique_property=metric.unique_property or "",
        custom_fields=metric.custom_fields,
        as_of_time=_optional(metric.as_of_time),
        create_time=to_timestamp(metric.create_time),
        update_time=to_timestamp(metric.update_time),
        event_name=metric.event_name or "",
        event_filters=event_filter_messages(metric.event_filters),
        quantity_property=metric.quantity_property or "",
    )


def cycle_message(cycle: BillingCycle) -> billing_period_pb2.BillingCycle:
    """A billing cycle."""
    return billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(cycle.anchor),
        cadence=_CADENCES[cycle.cadence],
        interval_count=cycle.interval_count,
        time_zone=cycle.time_zone,
    )


def _period_message(period: Period) -> billing_period_pb2.BillingPeriod:
    return billing_period_pb2.BillingPeriod(start_time=to_timestamp(period.start), end_time=to_timestamp(period.end))


def _optional(time: datetime | None) -> Timestamp | None:
    return None if time is None else to_timestamp(time)
