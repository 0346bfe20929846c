"""The API errors of AuditService, and the table of the domain's exceptions that they answer."""

from datetime import timedelta

from generated.tidemark.v1 import error_reason_pb2
from server.calls.errors import ErrorTable, FailedPrecondition, NotFound
from store.audit.log import EntriesDeleted


def error_table(retention: timedelta) -> ErrorTable:
    """The API error for each exception that the handlers of AuditService let pass. retention: of entries."""

    def resume_token_expired(error: EntriesDeleted) -> FailedPrecondition:
        days = str(retention.days)
        return FailedPrecondition(
            error_reason_pb2.ERROR_REASON_RESUME_TOKEN_EXPIRED,
            f"the entries after this position are deleted: they are kept for {days} days; begin with a start_time",
            metadata={"retention_days": days},
        )

    return {EntriesDeleted: resume_token_expired}


def entry_not_found(entry_number: int, retention: timedelta) -> NotFound:
    """The log has no entry of that number."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_AUDIT_ENTRY_NOT_FOUND,
        f"the audit log has no entry {entry_number}: there is none, or it is older than {retention.days} days",
        metadata={"entry_number": str(entry_number)},
    )
