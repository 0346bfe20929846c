"""The API errors of WebhookService, and the table of the domain's exceptions that they answer."""

from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import ErrorTable, FailedPrecondition, NotFound
from server.calls.shared_errors import customer_being_erased, quota_reached, request_id_reused
from store.endpoints.endpoints import MAX_ENDPOINTS, TooManyEndpoints
from store.endpoints.rows import Endpoint
from store.endpoints.secrets import MAX_LIVE, TooManySecrets
from store.erasures.jobs import CustomerBeingErased
from store.identity.idempotent_answers import RequestIdReused
from store.identity.quotas import QuotaReached


def error_table() -> ErrorTable:
    """The API error for each exception that the handlers of WebhookService let pass."""
    return {
        RequestIdReused: request_id_reused,
        CustomerBeingErased: customer_being_erased,
        TooManyEndpoints: too_many_endpoints,
        QuotaReached: quota_reached,
        TooManySecrets: too_many_secrets,
    }


def too_many_endpoints(error: TooManyEndpoints) -> FailedPrecondition:
    """The organization has the maximum number of endpoints."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_TOO_MANY_ENDPOINTS,
        f"the organization has {MAX_ENDPOINTS} webhook endpoints, the maximum: delete one first",
        metadata={"limit": str(MAX_ENDPOINTS)},
    )


def too_many_secrets(error: TooManySecrets) -> FailedPrecondition:
    """The endpoint has the maximum number of secrets that sign."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_TOO_MANY_SECRETS,
        f"{MAX_LIVE} secrets of the endpoint sign, the maximum: wait until the grace of one of them ends, or rotate"
        " with a grace of 0",
        metadata={"endpoint_id": error.endpoint_id, "limit": str(MAX_LIVE)},
    )


def no_secret_key() -> FailedPrecondition:
    """The operator has set no master key."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_NO_SECRET_KEY,
        "the service has no key to encrypt secrets with, and stores no secret in plain text:"
        " the operator has to set TIDEMARK_SECRET_KEYS for the server and the notifier",
        metadata={"setting": "TIDEMARK_SECRET_KEYS"},
    )


def endpoint_not_found(endpoint_id: str) -> NotFound:
    """The organization has no such endpoint, or it is deleted."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_ENDPOINT_NOT_FOUND,
        f"endpoint {endpoint_id!r} not found: there is none, or it was deleted",
        metadata={"endpoint_id": endpoint_id},
    )


def endpoint_disabled(found: Endpoint) -> FailedPrecondition:
    """Nothing is sent to an endpoint that is disabled."""
    return FailedPrecondition(
        error_reason_pb2.ERROR_REASON_ENDPOINT_DISABLED,
        f"the endpoint {found.endpoint_id} is disabled; enable it first",
        metadata={"endpoint_id": found.endpoint_id, "disable_reason": f"DISABLE_REASON_{found.disable_reason}"},
    )


def delivery_not_found(delivery_id: str) -> NotFound:
    """The organization has no such delivery."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_DELIVERY_NOT_FOUND,
        f"delivery {delivery_id!r} not found",
        metadata={"delivery_id": delivery_id},
    )


def notification_not_handed_out(notification_id: str) -> NotFound:
    """No endpoint has a delivery of the notification."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_NOTIFICATION_NOT_FOUND,
        f"no endpoint has a delivery of the notification {notification_id!r}: RecoverEndpoint sends an endpoint the"
        " notifications for which it has no delivery",
        metadata={"notification_id": notification_id},
    )


def redelivery_job_not_found(job_id: str) -> NotFound:
    """The organization has no such redelivery job."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_REDELIVERY_JOB_NOT_FOUND,
        f"redelivery job {job_id!r} not found",
        metadata={"job_id": job_id},
    )
