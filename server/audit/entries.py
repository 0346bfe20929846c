"""AuditService: single entries, and lists of them."""

from datetime import datetime, timedelta
from typing import cast

from generated.tidemark.v1 import audit_service_pb2 as messages
from server.audit.errors import entry_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping.audit_entries import entry_message, read_filter
from store.audit import log, numbering
from store.audit.log import canonical
from store.postgres.database import Database


class AuditEntryHandlers:
    """Serves the RPCs that return entries. retention: how long entries are kept."""

    def __init__(self, database: Database, *, retention: timedelta, most_examined: int) -> None:
        """most_examined: entries that one page reads, with filters that no index answers."""
        self._database = database
        self._retention = retention
        self._most_examined = most_examined

    async def GetAuditEntry(
        self, request: messages.GetAuditEntryRequest, context: Context
    ) -> messages.GetAuditEntryResponse:
        """One entry."""
        violations = Violations()
        if request.entry_number < 1:
            violations.add("entry_number", f"it is {request.entry_number}; entries are numbered from 1")
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with numbering.reading(self._database, organization_id) as connection:
            found = await log.get(connection, organization_id, request.entry_number)
        if found is None:
            raise entry_not_found(request.entry_number, self._retention)
        return messages.GetAuditEntryResponse(entry=entry_message(found))

    async def ListAuditEntries(
        self, request: messages.ListAuditEntriesRequest, context: Context
    ) -> messages.ListAuditEntriesResponse:
        """A page of entries, the newest first."""
        violations = Violations()
        wanted = read_filter(violations, request)
        start = violations.time("start_time", request.start_time) if request.HasField("start_time") else None
        end = violations.time("end_time", request.end_time) if request.HasField("end_time") else None
        if start is not None and end is not None and end <= start and not violations.found:
            violations.add("end_time", "start_time must be before end_time")
        bound_to = (
            *canonical(wanted),
            start.isoformat() if start else "",
            end.isoformat() if end else "",
        )
        page = read_page(
            violations, request.page_size, request.page_token, "ListAuditEntries", bound_to, (datetime, int)
        )
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with numbering.reading(self._database, organization_id) as connection:
            found = await log.list_page(
                connection,
                organization_id,
                wanted,
                between=(start, end),
                after=cast("tuple[datetime, int] | None", page.after),
                limit=page.limit,
                most_examined=self._most_examined,
            )
        answer = messages.ListAuditEntriesResponse()
        page = await page.cut_into(answer.entries, map(entry_message, page.shown(found.items)))
        answer.next_page_token = page.next_token(
            found.items, lambda row: (row.create_time, row.entry_number), found.end
        )
        return answer
