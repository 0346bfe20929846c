"""Why an alert cannot be changed, in the words of the API."""

from generated.tidemark.v1 import error_reason_pb2
from server.alerts.service import alert_not_found
from server.calls.errors import Aborted, AlreadyExists, ApiError, FailedPrecondition
from store.alerts.alerts import AlertConflict
from store.alerts.changes import AlertArchived, EtagMismatch, NotArchived


def refusal(error: Exception, alert_id: str) -> ApiError:
    """The answer to a change that the store refused; any other error means that there is no such alert."""
    metadata = {"alert_id": alert_id}
    if isinstance(error, EtagMismatch):
        return Aborted(
            error_reason_pb2.ERROR_REASON_ETAG_MISMATCH,
            f"the alert {alert_id} has the etag {error.version} by now: get it, and change that",
            metadata={**metadata, "etag": str(error.version)},
        )
    if isinstance(error, AlertArchived):
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_ALERT_ARCHIVED,
            f"the alert {alert_id} is archived, and stays as it is: create another",
            metadata=metadata,
        )
    if isinstance(error, NotArchived):
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_ALERT_NOT_ARCHIVED,
            f"the alert {alert_id} is not archived: archive it with release_uniqueness_key",
            metadata=metadata,
        )
    if isinstance(error, AlertConflict):
        return AlreadyExists(
            error_reason_pb2.ERROR_REASON_ALERT_EXISTS,
            f"the alert {error.alert_id} measures the same already, of which there may be only one",
            metadata={"alert_id": error.alert_id},
        )
    return alert_not_found(alert_id)
