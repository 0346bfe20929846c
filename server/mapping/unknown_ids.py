"""Warnings about ids that a request names and that the organization does not have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluator.alerts import Scope
from evaluator.definitions import Condition
from evaluator.exclusions import Excluded
from evaluator.thresholds import Threshold
from generated.tidemark.v1 import warning_pb2
from store.accounts.known_ids import ReferencedIds
from store.limits.limits import LimitSubject

_SPELLING = "check the spelling"
_UNTIL_THEN = "until then nothing is measured"


@dataclass(frozen=True)
class NamedIds:
    """The ids that a request names. paths: the path of the field with each id, by its name in `ReferencedIds`."""

    ids: ReferencedIds
    paths: Mapping[str, str]


def of_alert(scope: Scope, condition: Condition, thresholds: Sequence[Threshold]) -> NamedIds:
    """The ids in a definition of an alert."""
    percent = next((index for index, one in enumerate(thresholds) if one.percent_of_limit is not None), None)
    limited = percent is not None
    target = f"alert.scope.{scope.kind.lower()}"
    metric = f"alert.{condition.condition_type}.{'metric_id' if condition.balances is None else 'quantity.metric_id'}"
    limit = f"alert.thresholds[{percent}].percent_of_limit"
    return NamedIds(
        ReferencedIds(
            metric_id=condition.metric_id,
            plan_id=scope.plan_id,
            customer_id=scope.customer_id,
            subscription_id=scope.subscription_id,
            limited_metric_id=condition.metric_id if limited else None,
            limited_currency=condition.currency if limited and condition.metric_id is None else None,
        ),
        {
            "plan_id": f"{target}.plan_id",
            "customer_id": f"{target}.customer_id",
            "subscription_id": f"{target}.subscription_id",
            "metric_id": metric,
            "limited_metric_id": limit,
            "limited_currency": limit,
        },
    )


def of_excluded(excluded: Excluded) -> NamedIds:
    """The ids in a request that enables or disables an alert for one customer or subscription."""
    return NamedIds(
        ReferencedIds(customer_id=excluded.customer_id, subscription_id=excluded.subscription_id),
        {"customer_id": "customer_id", "subscription_id": "subscription_id"},
    )


def of_limit(subject: LimitSubject) -> NamedIds:
    """The ids in a limit."""
    return NamedIds(
        ReferencedIds(metric_id=subject.metric_id, plan_id=subject.plan_id, customer_id=subject.customer_id),
        {
            "plan_id": "limit.plan.plan_id",
            "customer_id": "limit.customer.customer_id",
            "metric_id": "limit.quantity.metric_id",
        },
    )


def warnings(named: NamedIds, unknown: ReferencedIds) -> list[warning_pb2.Warning]:
    """A warning for each unknown id."""
    return list(_warnings(named, unknown))


def _warnings(named: NamedIds, unknown: ReferencedIds) -> Iterator[warning_pb2.Warning]:
    def warning(name: str, reason: warning_pb2.WarningReason.ValueType, message: str) -> warning_pb2.Warning:
        return warning_pb2.Warning(
            reason=reason, field=named.paths[name], unknown_id=getattr(unknown, name), message=message
        )

    if (plan_id := unknown.plan_id) is not None:
        yield warning(
            "plan_id",
            warning_pb2.WARNING_REASON_PLAN_UNKNOWN,
            f"plan {plan_id!r} is unknown, and no customer or subscription is on it: {_SPELLING}, or put the plan or"
            f" its customers; {_UNTIL_THEN}",
        )
    if (customer_id := unknown.customer_id) is not None:
        yield warning(
            "customer_id",
            warning_pb2.WARNING_REASON_CUSTOMER_UNKNOWN,
            f"customer {customer_id!r} is unknown: {_SPELLING}, or put the customer or send its usage; {_UNTIL_THEN}",
        )
    if (subscription_id := unknown.subscription_id) is not None:
        yield warning(
            "subscription_id",
            warning_pb2.WARNING_REASON_SUBSCRIPTION_UNKNOWN,
            f"subscription {subscription_id!r} of the customer {named.ids.customer_id!r} is unknown: {_SPELLING}, or"
            f" put the subscription or send its usage; {_UNTIL_THEN}",
        )
    if (metric_id := unknown.metric_id) is not None:
        yield warning(
            "metric_id",
            warning_pb2.WARNING_REASON_METRIC_UNKNOWN,
            f"metric {metric_id!r} is unknown: {_SPELLING}, or put the metric or send its usage; {_UNTIL_THEN}",
        )
    for name, what in (("limited_metric_id", "metric"), ("limited_currency", "currency")):
        if (limited := getattr(unknown, name)) is not None:
            yield warning(
                name,
                warning_pb2.WARNING_REASON_LIMIT_UNKNOWN,
                f"no customer or plan has a limit of the {what} {limited!r}: put one, or give the"
                " threshold a value; until then it is not reached",
            )
