"""The API errors of AccountService, and the table of the domain's exceptions that they answer."""

from evaluator.amounts import format_decimal
from evaluator.routing_facts import MOST_LEVELS
from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import AlreadyExists, ErrorTable, FailedPrecondition, NotFound
from server.calls.shared_errors import customer_being_erased, customer_unknown, request_id_reused
from server.mapping.accounts import aggregation_name
from store.accounts.customer_names import CustomerNameTaken, NameKind
from store.accounts.customer_parents import ParentCycle, ParentTooDeep
from store.accounts.metrics import MetricFixed
from store.accounts.uses import FactInUse
from store.balances.adjustments import AdjustmentConflict, NoActiveSegment, SegmentUnknown
from store.balances.changes import BalanceExists, BalanceFixed, BalanceUnknown, BalanceVoided
from store.balances.decrements import BalancesInsufficient
from store.erasures.jobs import CustomerBeingErased, CustomerUnknown
from store.identity.idempotent_answers import RequestIdReused
from store.limits.changes import LimitExists, LimitFixed, MetricNotEnforceable
from store.recharges.policies import RechargePolicyUnknown
from store.recharges.reports import RechargeEnded, RechargeUnknown


def error_table() -> ErrorTable:
    """The API error for each exception that the handlers of AccountService let pass."""
    return {
        CustomerNameTaken: customer_name_taken,
        FactInUse: fact_in_use,
        MetricFixed: metric_fixed,
        LimitExists: limit_exists,
        LimitFixed: limit_fixed,
        MetricNotEnforceable: metric_not_enforceable,
        ParentCycle: parent_cycle,
        ParentTooDeep: parent_too_deep,
        BalanceFixed: balance_fixed,
        BalanceExists: balance_exists,
        BalancesInsufficient: balances_insufficient,
        BalanceUnknown: balance_unknown,
        BalanceVoided: balance_voided,
        SegmentUnknown: segment_unknown,
        NoActiveSegment: no_active_segment,
        AdjustmentConflict: adjustment_conflict,
        RechargePolicyUnknown: recharge_policy_unknown,
        RechargeUnknown: recharge_unknown,
        RechargeEnded: recharge_ended,
        CustomerUnknown: customer_unknown,
        CustomerBeingErased: customer_being_erased,
        RequestIdReused: request_id_reused,
    }


def customer_name_taken(error: CustomerNameTaken) -> AlreadyExists:
    """Another customer has the external id or the alias."""
    field = {NameKind.EXTERNAL_ID: "external_id", NameKind.ALIAS: "alias"}[error.kind]
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_CUSTOMER_NAME_TAKEN,
        f"the customer {error.customer_id!r} has the {field} {error.name!r}: take it from that customer first",
        metadata={"customer_id": error.customer_id, field: error.name},
    )


def subscription_not_found(customer_id: str, subscription_id: str) -> NotFound:
    """The customer, or any customer if it is empty, has no such subscription."""
    who = f"the customer {customer_id!r} has no" if customer_id else "no customer has a"
    of_customer = {"customer_id": customer_id} if customer_id else {}
    return NotFound(
        error_reason_pb2.ERROR_REASON_SUBSCRIPTION_NOT_FOUND,
        f"{who} subscription {subscription_id!r}: create it with PutSubscription, or send usage for it first",
        metadata={**of_customer, "subscription_id": subscription_id},
    )


def subscription_ambiguous(subscription_id: str, customer_count: int) -> FailedPrecondition:
    """Several customers have a subscription of that id."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_SUBSCRIPTION_AMBIGUOUS,
        f"{customer_count} customers have a subscription {subscription_id!r}: name the customer",
        metadata={"subscription_id": subscription_id, "customer_count": str(customer_count)},
    )


def fact_in_use(error: FactInUse) -> FailedPrecondition:
    """Something uses the fact that was to be deleted."""
    user = error.user
    by_id = {} if user.user_id is None else {"used_by_id": user.user_id}
    name = user.kind.value.lower() + (f" {user.user_id!r}" if user.user_id else "")
    what = " ".join(f"{field.removesuffix('_id')} {value!r}" for field, value in error.ids.items())
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_IN_USE,
        f"{what} is in use by {name}",
        metadata={**error.ids, "used_by": user.kind.value, **by_id},
    )


def metric_not_found(metric_id: str) -> NotFound:
    """The organization has no such metric."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_METRIC_NOT_FOUND,
        f"metric {metric_id!r} not found: create it with PutMetric, or send usage for it first",
        metadata={"metric_id": metric_id},
    )


def plan_not_found(plan_id: str) -> NotFound:
    """The plan was never put, or it was deleted."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_PLAN_NOT_FOUND,
        f"plan {plan_id!r} not found: create it with PutPlan",
        metadata={"plan_id": plan_id},
    )


def limit_not_found(limit_id: str) -> NotFound:
    """The organization has no such limit."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_LIMIT_NOT_FOUND,
        f"limit {limit_id!r} not found: create it with PutLimit",
        metadata={"limit_id": limit_id},
    )


def metric_fixed(error: MetricFixed) -> FailedPrecondition:
    """The metric exists with another aggregation, or other events count in it."""
    metric_id, unique = error.stored.metric_id, error.stored.unique_property
    if not error.aggregation:
        event_name = error.stored.event_name or ""
        of = f"with the event_name {event_name!r}" if event_name else "without an event_name"
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_METRIC_EVENTS_FIXED,
            f"the metric {metric_id!r} exists {of}; its event_name, event_filters and quantity_property cannot be"
            " changed: put another metric",
            metadata={"metric_id": metric_id, "event_name": event_name},
        )
    fixed = aggregation_name(error.stored.aggregation)
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_METRIC_AGGREGATION_FIXED,
        f"the metric {metric_id!r} exists with {fixed}{f' of {unique!r}' if unique else ''}, and its usage cannot be"
        " counted again: put another metric",
        metadata={"metric_id": metric_id, "aggregation": fixed},
    )


def limit_exists(error: LimitExists) -> AlreadyExists:
    """Another limit is of the same customer or plan, of the same access, groups and window."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_LIMIT_EXISTS,
        f"the limit {error.limit_id!r} has the same holder, access, groups and window: put that limit",
        metadata={"limit_id": error.limit_id},
    )


def limit_fixed(error: LimitFixed) -> FailedPrecondition:
    """The limit exists with another holder, access or window, or with other groups."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_LIMIT_FIXED,
        f"the limit {error.limit_id!r} exists with another {error.field}: put another limit",
        metadata={"limit_id": error.limit_id, "field": error.field},
    )


def metric_not_enforceable(error: MetricNotEnforceable) -> FailedPrecondition:
    """The usage of the metric cannot be added up, so a limit of it cannot stop usage."""
    aggregation = aggregation_name(error.aggregation)
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_METRIC_NOT_ENFORCEABLE,
        f"the metric {error.metric_id!r} has {aggregation}, and only limits of a SUM or COUNT can be enforced: put"
        " the limit without enforcement, or for another metric",
        metadata={"limit_id": error.limit_id, "metric_id": error.metric_id, "aggregation": aggregation},
    )


def parent_cycle(error: ParentCycle) -> FailedPrecondition:
    """The customer would stand above itself."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_PARENT_CYCLE,
        f"the customer {error.customer_id!r} is the parent_customer_id {error.parent_customer_id!r} or above it: put"
        " that customer below another one first, or name another parent",
        metadata={"customer_id": error.customer_id, "parent_customer_id": error.parent_customer_id},
    )


def parent_too_deep(error: ParentTooDeep) -> FailedPrecondition:
    """Too many customers would stand one above the other."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_PARENT_TOO_DEEP,
        f"below {error.parent_customer_id!r}, the customer {error.customer_id!r} and those below it would make more"
        f" than {MOST_LEVELS} levels: name a parent that is higher up",
        metadata={
            "customer_id": error.customer_id,
            "parent_customer_id": error.parent_customer_id,
            "most_levels": str(MOST_LEVELS),
        },
    )


def balance_not_found(customer_id: str, balance_id: str) -> NotFound:
    """The customer has no such balance."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_BALANCE_NOT_FOUND,
        f"the customer {customer_id!r} has no balance {balance_id!r}: create it with PutBalance",
        metadata={"customer_id": customer_id, "balance_id": balance_id},
    )


def balance_unknown(error: BalanceUnknown) -> NotFound:
    """The customer has no such balance."""
    return balance_not_found(error.customer_id, error.balance_id)


def balance_fixed(error: BalanceFixed) -> FailedPrecondition:
    """The balance exists with another kind, access, seat or license type."""
    customer_id, balance_id = error.stored.fact.customer_id, error.stored.fact.balance_id
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_BALANCE_FIXED,
        f"the balance {balance_id!r} exists with another {error.field}: void it and put another",
        metadata={"customer_id": customer_id, "balance_id": balance_id, "field": error.field},
    )


def balance_exists(error: BalanceExists) -> AlreadyExists:
    """A put that must be of a new balance names one that exists."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_BALANCE_EXISTS,
        f"the customer {error.customer_id!r} has a balance {error.balance_id!r} already: put it without"
        " only_if_new, or put another",
        metadata={"customer_id": error.customer_id, "balance_id": error.balance_id},
    )


def balances_insufficient(error: BalancesInsufficient) -> FailedPrecondition:
    """The segments cannot give all of the amount."""
    wanted, remaining = error.wanted, format_decimal(error.available)
    unit = {"currency": wanted.unit.currency, "metric_id": wanted.unit.metric_id}
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_BALANCES_INSUFFICIENT,
        f"the balances of the customer {wanted.customer_id!r} can give {remaining} now: take less, or set"
        " overage_policy to ALLOW",
        metadata={
            "customer_id": wanted.customer_id,
            **{name: value for name, value in unit.items() if value is not None},
            "amount": format_decimal(wanted.amount),
            "remaining": remaining,
        },
    )


def balance_voided(error: BalanceVoided) -> FailedPrecondition:
    """A voided balance does not change."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_BALANCE_VOIDED,
        f"the balance {error.balance_id!r} was voided: put another",
        metadata={"customer_id": error.customer_id, "balance_id": error.balance_id},
    )


def segment_unknown(error: SegmentUnknown) -> NotFound:
    """The balance has no segment of that number."""
    number = str(error.segment_number)
    return NotFound(
        error_reason_pb2.ERROR_REASON_SEGMENT_NOT_FOUND,
        f"the balance {error.balance_id!r} has no segment {number}",
        metadata={"customer_id": error.customer_id, "balance_id": error.balance_id, "segment_number": number},
    )


def no_active_segment(error: NoActiveSegment) -> FailedPrecondition:
    """The request names no segment, and none is active."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_NO_ACTIVE_SEGMENT,
        f"no segment of the balance {error.balance_id!r} is active now: name one by its segment_number",
        metadata={"customer_id": error.customer_id, "balance_id": error.balance_id},
    )


def adjustment_conflict(error: AdjustmentConflict) -> AlreadyExists:
    """The adjustment id belongs to an adjustment with other fields."""
    of_balance = {"balance_id": error.balance_id} if error.balance_id else {}
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_ADJUSTMENT_CONFLICT,
        f"the adjustment {error.adjustment_id!r} was made before, with another balance, amount, segment or other"
        " field: use a new id for a new adjustment",
        metadata={"customer_id": error.customer_id, **of_balance, "adjustment_id": error.adjustment_id},
    )


def recharge_policy_not_found(customer_id: str, balance_id: str) -> NotFound:
    """The balance has no recharge policy."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_RECHARGE_POLICY_NOT_FOUND,
        f"the balance {balance_id!r} of the customer {customer_id!r} has no recharge policy: create it with"
        " PutRechargePolicy",
        metadata={"customer_id": customer_id, "balance_id": balance_id},
    )


def recharge_policy_unknown(error: RechargePolicyUnknown) -> NotFound:
    """The balance has no recharge policy."""
    return recharge_policy_not_found(error.customer_id, error.balance_id)


def recharge_not_found(customer_id: str, recharge_id: str) -> NotFound:
    """The customer has no such recharge."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_RECHARGE_NOT_FOUND,
        f"the customer {customer_id!r} has no recharge {recharge_id!r}: ListRecharges lists them",
        metadata={"customer_id": customer_id, "recharge_id": recharge_id},
    )


def recharge_unknown(error: RechargeUnknown) -> NotFound:
    """The customer has no such recharge."""
    return recharge_not_found(error.customer_id, error.recharge_id)


def recharge_ended(error: RechargeEnded) -> FailedPrecondition:
    """Another result of the recharge was reported before."""
    stored = error.stored
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_RECHARGE_ENDED,
        f"the recharge {stored.recharge_id!r} was reported as {stored.state.value} before, with other values: that"
        " stands; correct the balance with AdjustBalance if it was wrong",
        metadata={
            "customer_id": stored.customer_id,
            "recharge_id": stored.recharge_id,
            "state": stored.state.value,
        },
    )


def erasure_job_not_found(job_id: str) -> NotFound:
    """The organization has no such erasure job."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_ERASURE_JOB_NOT_FOUND,
        f"erasure job {job_id!r} not found",
        metadata={"job_id": job_id},
    )
