"""AuditService: the stream of new entries."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime

from generated.tidemark.v1 import audit_service_pb2 as messages
from server.alerts.subscribers.resume_tokens import invalid_token
from server.audit.resume_tokens import AuditTokens
from server.audit.watched_logs import WatchedLog, WatchedLogs
from server.authentication.revocation import raise_if_revoked
from server.calls.context import Context, when_over
from server.calls.current_call import current_organization
from server.calls.lifecycle import Drain
from server.calls.stream_end import stream_end
from server.calls.validation import Violations
from server.mapping.audit_entries import entry_message, read_filter
from store.audit import log, numbering
from store.audit.log import AuditFilter, EntriesDeleted, StoredEntry
from store.postgres.database import Database

MAX_HEARTBEAT = 15.0  # seconds; the contract promises a heartbeat at least that often


class AuditStreamHandlers:
    """Serves the RPC that streams entries. heartbeat: seconds without an answer until a stream sends a heartbeat."""

    def __init__(self, database: Database, logs: WatchedLogs, drain: Drain, *, heartbeat: float) -> None:
        self._database = database
        self._logs = logs
        self._drain = drain
        self._heartbeat = min(heartbeat, MAX_HEARTBEAT)

    async def WatchAuditEntries(
        self, request: messages.WatchAuditEntriesRequest, context: Context
    ) -> AsyncIterator[messages.WatchAuditEntriesResponse]:
        """Sends entries in the order of their numbers, until the server drains or the stream is too old.

        Raises EntriesDeleted when the entries after the beginning are deleted.
        """
        violations = Violations()
        wanted = read_filter(violations, request)
        start = violations.time("start_time", request.start_time) if request.HasField("start_time") else None
        if start is not None and request.resume_token:
            violations.add("start_time", "the resume_token sets where the stream begins: leave one of them unset")
        violations.raise_if_any()
        tokens = AuditTokens(wanted)
        watched = self._logs.subscribe(current_organization().organization_id)
        when_over(lambda _: self._logs.leave(watched))
        ending = stream_end(self._drain)
        try:
            position = await self._beginning(watched, request.resume_token, start, tokens)
            stream = _Stream(self._logs, watched, wanted, tokens, position, self._heartbeat)
            async with contextlib.aclosing(stream.answers(ending)) as answers:
                async for answer in answers:
                    yield answer
                    del answer
            raise_if_revoked()
            yield stream.going_away()
        finally:
            ending.cancel()

    async def _beginning(
        self, watched: WatchedLog, resume_token: str, start: datetime | None, tokens: AuditTokens
    ) -> int:
        """The number after which a stream begins. Raises EntriesDeleted and InvalidArgument for its token."""
        organization_id = watched.organization_id
        position = tokens.read(resume_token) if resume_token else None
        async with numbering.reading(self._database, organization_id) as connection:
            extent = await log.extent(connection, organization_id)
            if position is None:
                position = extent.last_number
                if start is not None:
                    position = await log.number_before(connection, organization_id, start)
        if position > extent.last_number:
            # The database was restored to an older state. A stream that waits for this number would skip all entries
            # before it.
            raise invalid_token()
        if position < extent.deleted_number:
            raise EntriesDeleted
        watched.grow_to(extent.last_number)
        return position


class _Stream:
    """The answers of one stream."""

    def __init__(
        self,
        logs: WatchedLogs,
        watched: WatchedLog,
        wanted: AuditFilter,
        tokens: AuditTokens,
        position: int,
        heartbeat: float,
    ) -> None:
        self._logs = logs
        self._watched = watched
        self._wanted = wanted
        self._tokens = tokens
        self._position = position
        self._heartbeat = heartbeat
        self._loop = asyncio.get_running_loop()
        self._sent_time = 0.0  # of the last answer, on the loop's clock

    async def answers(
        self, ending: "asyncio.Future[None]"
    ) -> AsyncGenerator[messages.WatchAuditEntriesResponse, None]:
        """A heartbeat with the first token, then the wanted entries by number, until `ending`."""
        yield self._heartbeat_answer()
        while not ending.done():
            growth = self._watched.growth
            if self._watched.last_number > self._position:
                entries, until = await self._logs.read(self._watched.organization_id, self._wanted, self._position)
                for entry in entries:
                    yield self._answer(entry)
                    if ending.done():
                        return
                self._position = until
            else:
                left = self._sent_time + self._heartbeat - self._loop.time()
                await asyncio.wait((growth, ending), timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
            if not ending.done() and self._loop.time() >= self._sent_time + self._heartbeat:
                yield self._heartbeat_answer()

    def going_away(self) -> messages.WatchAuditEntriesResponse:
        """The last answer of a stream that the server ends."""
        return messages.WatchAuditEntriesResponse(resume_token=self._tokens.write(self._position), going_away=True)

    def _heartbeat_answer(self) -> messages.WatchAuditEntriesResponse:
        self._sent_time = self._loop.time()
        return messages.WatchAuditEntriesResponse(resume_token=self._tokens.write(self._position), heartbeat=True)

    def _answer(self, entry: StoredEntry) -> messages.WatchAuditEntriesResponse:
        self._position, self._sent_time = entry.entry_number, self._loop.time()
        return messages.WatchAuditEntriesResponse(
            resume_token=self._tokens.write(self._position), entry=entry_message(entry)
        )
