"""The API errors of AccountService, and the table of the domain's exceptions that they answer."""

from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import AlreadyExists, ErrorTable, FailedPrecondition, NotFound
from server.calls.shared_errors import customer_not_found
from server.mapping.accounts import aggregation_name
from store.accounts.metrics import MetricFixed
from store.balances.changes import (
    AdjustmentConflict,
    BalanceFixed,
    BalanceUnknown,
    BalanceVoided,
    NoActiveSegment,
    SegmentUnknown,
)
from store.erasures.jobs import CustomerBeingErased, CustomerUnknown
from store.limits.limits import LimitExists, LimitFixed


def error_table() -> ErrorTable:
    """The API error for each exception that the handlers of AccountService let pass."""
    return {
        MetricFixed: metric_fixed,
        LimitExists: limit_exists,
        LimitFixed: limit_fixed,
        BalanceFixed: balance_fixed,
        BalanceUnknown: balance_unknown,
        BalanceVoided: balance_voided,
        SegmentUnknown: segment_unknown,
        NoActiveSegment: no_active_segment,
        AdjustmentConflict: adjustment_conflict,
        CustomerUnknown: customer_unknown,
        CustomerBeingErased: customer_being_erased,
    }


def metric_fixed(error: MetricFixed) -> FailedPrecondition:
    """The metric exists with another aggregation, or other events count in it."""
    metric_id, unique = error.stored.metric_id, error.stored.unique_property
    if not error.aggregation:
        event_type = error.stored.event_type or ""
        of = f"with the event_type {event_type!r}" if event_type else "without an event_type"
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_METRIC_EVENTS_FIXED,
            f"the metric {metric_id!r} exists {of}; its event_type, event_filters and quantity_property cannot be"
            " changed: put another metric",
            metadata={"metric_id": metric_id, "event_type": event_type},
        )
    fixed = aggregation_name(error.stored.aggregation)
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_METRIC_AGGREGATION_FIXED,
        f"the metric {metric_id!r} exists with {fixed}{f' of {unique!r}' if unique else ''}, and its usage cannot be"
        " counted again: put another metric",
        metadata={"metric_id": metric_id, "aggregation": fixed},
    )


def limit_exists(error: LimitExists) -> AlreadyExists:
    """Another limit is of the same customer or plan, of the same access and groups."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_LIMIT_EXISTS,
        f"the limit {error.limit_id!r} has the same holder, access and groups: put that limit",
        metadata={"limit_id": error.limit_id},
    )


def limit_fixed(error: LimitFixed) -> FailedPrecondition:
    """The limit exists with another holder, access or groups."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_LIMIT_FIXED,
        f"the limit {error.limit_id!r} exists with another {error.field}: put another limit",
        metadata={"limit_id": error.limit_id, "field": error.field},
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
    """The adjustment id belongs to an adjustment with another balance, amount or segment."""
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_ADJUSTMENT_CONFLICT,
        f"the adjustment {error.adjustment_id!r} was made before, with another balance, amount or segment:"
        " use a new id for a new adjustment",
        metadata={
            "customer_id": error.customer_id,
            "balance_id": error.balance_id,
            "adjustment_id": error.adjustment_id,
        },
    )


def customer_unknown(error: CustomerUnknown) -> NotFound:
    """The organization has no such customer."""
    return customer_not_found(error.customer_id)


def customer_being_erased(error: CustomerBeingErased) -> FailedPrecondition:
    """The customer takes no facts until its erasure is done."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_CUSTOMER_BEING_ERASED,
        f"the customer {error.customer_id!r} is being erased: send facts of a new customer of that id when the"
        " erasure is done",
        metadata={"customer_id": error.customer_id},
    )


def erasure_job_not_found(job_id: str) -> NotFound:
    """The organization has no such erasure job."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_ERASURE_JOB_NOT_FOUND,
        f"erasure job {job_id!r} not found",
        metadata={"job_id": job_id},
    )
