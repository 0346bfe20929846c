"""The API errors of AlertService, and the table of the domain's exceptions that they answer."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from engine.ingest.pending import Overloaded
from generated.tidemark.v1 import error_reason_pb2
from server.alerts.batch_items import at_item
from server.calls.errors import (
    Aborted,
    AlreadyExists,
    ApiError,
    ErrorTable,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    exhausted_by_organization,
    mapped,
)
from server.calls.shared_errors import customer_being_erased, customer_unknown, quota_reached, request_id_reused
from store.alerts.change import ItemRefused, ItemsAlike
from store.alerts.changes import AlertArchived, AlertUnknown, EtagMismatch, NotArchived
from store.alerts.creation import TooManyAlerts
from store.alerts.unique_keys import AlertConflict, UniqueBy
from store.erasures.jobs import CustomerBeingErased, CustomerUnknown
from store.identity.idempotent_answers import RequestIdReused
from store.identity.quotas import QuotaReached
from store.notifications.feed import EntriesDeleted

RETRY_OVERLOAD = timedelta(milliseconds=500)


def error_table(notification_retention: timedelta) -> ErrorTable:
    """The API error for each exception that the handlers of AlertService let pass."""

    def resume_token_expired(error: EntriesDeleted) -> FailedPrecondition:
        days = str(notification_retention.days)
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_RESUME_TOKEN_EXPIRED,
            f"the notifications after this position are deleted: they are kept for {days} days;"
            " begin with a start_time",
            metadata={"retention_days": days},
        )

    def item_refused(error: ItemRefused) -> ApiError:
        others = {other.index: mapped(other.cause, table) for other in error.others}
        return at_item(mapped(error.cause, table), error.index, others)

    table: dict[type[Exception], Callable[[Any], ApiError]] = {
        AlertUnknown: alert_unknown,
        AlertArchived: alert_archived,
        NotArchived: alert_not_archived,
        EtagMismatch: etag_mismatch,
        AlertConflict: alert_conflict,
        TooManyAlerts: too_many_alerts,
        QuotaReached: quota_reached,
        RequestIdReused: request_id_reused,
        CustomerUnknown: customer_unknown,
        CustomerBeingErased: customer_being_erased,
        Overloaded: overloaded,
        EntriesDeleted: resume_token_expired,
        ItemRefused: item_refused,
        ItemsAlike: items_alike,
    }
    return table


def alert_not_found(alert_id: str, covering: str | None = None) -> NotFound:
    """The organization has no such alert, or, with `covering`, none that covers that customer."""
    such = "such alert" if covering is None else f"such alert that covers the customer {covering!r}"
    return NotFound(
        error_reason_pb2.ERROR_REASON_ALERT_NOT_FOUND,
        f"there is no {such}: {alert_id!r}",
        metadata={"alert_id": alert_id},
    )


def alert_with_key_not_found(uniqueness_key: str) -> NotFound:
    """No alert of the organization has that uniqueness key."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_ALERT_NOT_FOUND,
        f"no alert has the uniqueness key {uniqueness_key!r}: create it, or set allow_missing without an etag",
        metadata={"uniqueness_key": uniqueness_key},
    )


def items_alike(error: ItemsAlike) -> InvalidArgument:
    """Two requests of a batch exclude each other."""
    if error.key in ("alert_id", "alert.alert_id"):
        path, what = error.key, "change the same alert"
    elif error.key == UniqueBy.UNIQUENESS_KEY:
        path, what = "alert.uniqueness_key", "have the same uniqueness key"
    else:
        path, what = "alert", "measure the same, and only one such alert may exist"
    text = f"it and requests[{error.other}] {what}"
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_INVALID_FIELD, f"{path}: {text}", violations=[FieldViolation(path, text)]
    )


def alert_unknown(error: AlertUnknown) -> NotFound:
    """The organization has no such alert."""
    return alert_not_found(error.alert_id)


def etag_mismatch(error: EtagMismatch) -> Aborted:
    """The caller's change is of an older version of the alert."""
    return Aborted(
        error_reason_pb2.ERROR_REASON_ETAG_MISMATCH,
        f"the alert {error.alert_id} has the etag {error.version} now: get it again, and change that version",
        metadata={"alert_id": error.alert_id, "etag": str(error.version)},
    )


def alert_archived(error: AlertArchived) -> FailedPrecondition:
    """An archived alert does not change."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_ALERT_ARCHIVED,
        f"the alert {error.alert_id} is archived and cannot change: create another",
        metadata={"alert_id": error.alert_id},
    )


def alert_not_archived(error: NotArchived) -> FailedPrecondition:
    """Only an archived alert can release its uniqueness key."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_ALERT_NOT_ARCHIVED,
        f"the alert {error.alert_id} is not archived: archive it with release_uniqueness_key",
        metadata={"alert_id": error.alert_id},
    )


def alert_conflict(error: AlertConflict) -> AlreadyExists:
    """Another alert has the uniqueness key, or measures the same."""
    if error.key is UniqueBy.UNIQUENESS_KEY:
        return AlreadyExists(
            error_reason_pb2.ERROR_REASON_UNIQUENESS_KEY_TAKEN,
            f"the alert {error.alert_id} holds this uniqueness key: use another,"
            " or archive that alert with release_uniqueness_key",
            metadata={"uniqueness_key": error.uniqueness_key or "", "alert_id": error.alert_id},
        )
    return AlreadyExists(
        error_reason_pb2.ERROR_REASON_ALERT_EXISTS,
        f"the alert {error.alert_id} measures the same already, and only one such alert may exist",
        metadata={"alert_id": error.alert_id},
    )


def too_many_alerts(error: TooManyAlerts) -> FailedPrecondition:
    """The plan or the subscription has the maximum number of alerts on cost of one type."""
    scope = error.scope.lower().replace("_", " and ")
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_TOO_MANY_ALERTS,
        f"a {scope} has at most {error.maximum} alerts of this type: archive one first",
        metadata={"limit": str(error.maximum)},
    )


def overloaded(error: Overloaded) -> ResourceExhausted:
    """The process has no room for the events of a batch."""
    own = error.pending_of_organization
    if own is not None:
        # The size of the share is not in the answer: it depends on the usage of other organizations.
        return ResourceExhausted(
            error_reason_pb2.ERROR_REASON_OVERLOADED,
            f"{own} events of this organization wait for the database, and these {error.events} are more than the"
            " rest of its share of this server: send this batch again a little later",
            metadata={"share_of": "organization", "pending_events": str(own)},
            exhausted=exhausted_by_organization("its share of the pending events of this server"),
            retry_after=RETRY_OVERLOAD,
        )
    return ResourceExhausted(
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        f"this server has no room for {error.events} more events: send this batch again a little later, or fewer"
        " events in one batch",
        metadata={"share_of": "server"},
        retry_after=RETRY_OVERLOAD,
    )
