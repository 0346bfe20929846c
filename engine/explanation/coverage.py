"""Whether an alert is evaluated for a customer at all: its scope, its state, and the exclusions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.explanation.findings import Check, Reason, StepResult
from evaluator.alerts import AlertRule, ScopeKind
from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import ExclusionReason
from evaluator.routing_facts import CustomerFacts, SubscriptionFacts

MAX_SUBSCRIPTIONS = 1_000  # of a customer, that are compared with the scope


@dataclass(frozen=True)
class Owner:
    """The customer itself, or one of its subscriptions, as the owner of a gauge."""

    subscription_id: str | None
    plan_id: str | None


def owners_of(rule: AlertRule, facts: CustomerFacts, subscriptions: Sequence[SubscriptionFacts]) -> list[Owner]:
    """The customer, or those of the subscriptions, that the alert covers."""
    every = [Owner(None, facts.plan_id)]
    if rule.measure.per_subscription:
        every = [Owner(one.subscription_id, one.plan_id) for one in subscriptions]
    return [one for one in every if rule.scope.covers(facts.customer_id, one.subscription_id, one.plan_id)]


def check_scope(
    rule: AlertRule, facts: CustomerFacts, subscriptions: Sequence[SubscriptionFacts], owners: Sequence[Owner]
) -> StepResult:
    """Whether the scope of the alert contains the customer. owners: those that it covers."""
    scope, customer_id = rule.scope, facts.customer_id
    if owners:
        what = f"the customer {customer_id!r}"
        if rule.measure.per_subscription:
            names = ", ".join(repr(one.subscription_id) for one in owners[:3])
            what = f"{counted(len(owners), 'subscription')} of {what}: {names}{', …' if len(owners) > 3 else ''}"
        return StepResult(Check.SCOPE, Reason.PASSED, f"The scope of the alert covers {what}.")
    if scope.customer_id is not None and scope.customer_id != customer_id:
        of = "the customer" if scope.subscription_id is None else f"the subscription {scope.subscription_id!r} of"
        text = f"The alert covers only {of} {scope.customer_id!r}, and not the customer {customer_id!r}."
        return StepResult(Check.SCOPE, Reason.OTHER_CUSTOMER, text)
    if not rule.measure.per_subscription:
        own = "is on no plan" if facts.plan_id is None else f"is on the plan {facts.plan_id!r}"
        text = f"The alert covers customers of the plan {scope.plan_id!r}, and the customer {customer_id!r} {own}."
        return StepResult(Check.SCOPE, Reason.OTHER_PLAN, text)
    return _no_subscription(rule, facts, subscriptions)


def _no_subscription(rule: AlertRule, facts: CustomerFacts, subscriptions: Sequence[SubscriptionFacts]) -> StepResult:
    scope, customer_id = rule.scope, facts.customer_id
    if scope.kind is ScopeKind.SUBSCRIPTION:
        text = f"The alert covers the subscription {scope.subscription_id!r}, which the customer does not have yet."
        return StepResult(Check.SCOPE, Reason.NO_SUBSCRIPTION, text)
    if not subscriptions:
        text = f"The alert measures subscriptions, and the customer {customer_id!r} has none."
        return StepResult(Check.SCOPE, Reason.NO_SUBSCRIPTION, text)
    compared = counted(len(subscriptions), "subscription")
    if len(subscriptions) == MAX_SUBSCRIPTIONS:
        compared = f"the first {compared}; name another with subscription_id"
    text = f"The alert covers subscriptions on the plan {scope.plan_id!r}; none is on it ({compared})."
    return StepResult(Check.SCOPE, Reason.OTHER_PLAN, text)


def check_state(definition: AlertDefinition) -> StepResult:
    """Whether the alert is active."""
    if definition.active_rule() is not None:
        return StepResult(Check.STATE, Reason.PASSED, "The alert is active.")
    if definition.state is DefinitionState.ARCHIVED:
        text = f"The alert was archived on {shown_time(definition.archive_time)}, and is not evaluated any more."
        return StepResult(Check.STATE, Reason.ALERT_ARCHIVED, text)
    text = "The alert is disabled as a whole: EnableAlert makes it active again."
    return StepResult(Check.STATE, Reason.ALERT_DISABLED, text)


def check_exclusion(
    rule: AlertRule,
    facts: CustomerFacts,
    owners: Sequence[Owner],
    reasons: Mapping[tuple[str, str | None], ExclusionReason],
) -> StepResult:
    """Whether the alert is disabled for the customer, or for every subscription that it covers.

    reasons: of the exclusions, by alert id and subscription id (None: all of the customer).
    """
    allowed = [one for one in owners if not facts.excludes(rule.alert_id, one.subscription_id)]
    if allowed:
        text = "The alert is not disabled for the customer."
        if len(allowed) < len(owners):
            text = f"The alert is disabled for {len(owners) - len(allowed)} of {len(owners)} subscriptions."
        return StepResult(Check.EXCLUSION, Reason.PASSED, text)
    if facts.being_erased:
        text = "The customer is being erased (DeleteCustomer): no alert is evaluated for it."
        return StepResult(Check.EXCLUSION, Reason.CUSTOMER_BEING_ERASED, text)
    found = reasons.get((rule.alert_id, None)) or next(
        (reason for one in owners if (reason := reasons.get((rule.alert_id, one.subscription_id)))), None
    )
    if found is ExclusionReason.GROUP_LIMIT:
        text = (
            "The alert was disabled for the customer because its usage had too many groups in one period: use a group"
            " key with fewer values, then EnableAlert with the customer."
        )
        return StepResult(Check.EXCLUSION, Reason.GROUP_LIMIT, text)
    text = "A caller disabled the alert for the customer: EnableAlert with the customer ends that."
    return StepResult(Check.EXCLUSION, Reason.DISABLED_FOR_CUSTOMER, text)


def counted(count: int, noun: str) -> str:
    """A number of things for people."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shown_time(time: datetime | None) -> str:
    """A time for people."""
    return "an unknown time" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def check_backfill(definition: AlertDefinition, customer_id: str) -> StepResult:
    """Whether the alert was evaluated on what existed before it, or before its last change."""
    if definition.awaits_backfill_of(customer_id):
        text = (
            "The alert is new or was changed, and is not evaluated for the customer yet: the server does that in the"
            " background, customer by customer."
        )
        return StepResult(Check.BACKFILL, Reason.NOT_EVALUATED_YET, text)
    return StepResult(Check.BACKFILL, Reason.PASSED, "The alert was evaluated on what existed before it.")
