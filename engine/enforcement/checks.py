"""Checks: decisions without an effect, from what is committed. No lock is taken, and no commit is waited for.

The checks of an organization that arrive during a read (`check_reads`) make up the next one. A meter that is missing,
because nothing has moved it yet, is counted from the stored events, and kept in memory (`counted_meters`).
"""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta

from engine.enforcement.check_reads import Checked, CheckReads, KnownOfChecks
from evaluator.enforcement.decisions import OveragePolicy
from evaluator.enforcement.usage import Usage
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from store.balances.balances import read_one_snapshot
from store.enforcement import changed_customers
from store.enforcement.changed_customers import Mark
from store.identity.organizations import Organization
from store.postgres.database import Database, driver
from store.postgres.retries import repeated

USAGES_AT_ONCE = 2_000  # of one read
IDLE_ORGANIZATIONS = 1_000  # whose targets are kept


@dataclass(eq=False, slots=True)
class _Waiting:
    usages: Sequence[tuple[Usage, OveragePolicy]]
    done: asyncio.Future[list[Checked]]


@dataclass(eq=False, slots=True)
class _Reader:
    """The checks of one organization that wait, and the task that reads while there are any."""

    organization: Organization
    known: KnownOfChecks
    waiting: deque[_Waiting] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Checks:
    """Checks usage of all organizations. gate: the connections that checks may use; None: any number."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        *,
        gate: FairSemaphore | None = None,
    ) -> None:
        self._reads = CheckReads(database, clock, grace)
        self._database = database
        self._gate = gate
        self._readers: dict[int, _Reader] = {}

    async def check(
        self, organization: Organization, usages: Sequence[Usage], policy: OveragePolicy
    ) -> list[Checked]:
        """The decision about each usage by itself. Raises DatabaseUnavailable."""
        if not usages:
            return []
        reader = self._reader(organization)
        future: asyncio.Future[list[Checked]] = asyncio.get_running_loop().create_future()
        reader.waiting.append(_Waiting([(usage, policy) for usage in usages], future))
        if reader.task is None:
            # In an empty context: a read belongs to several calls, and not to the one that came first.
            reader.task = asyncio.create_task(
                self._work(reader), name="enforcement-checks", context=contextvars.Context()
            )
        return await future

    async def changed(
        self, organization: Organization, customer_ids: Sequence[str], since: Mark | None
    ) -> tuple[set[str], Mark]:
        """Those of the customers whose decisions may have changed since the last look; and the mark of this one.

        since: the mark of the last look; None finds nothing. What changes for all customers of a plan, and with time
        alone, is not found. Raises DatabaseUnavailable.
        """
        async with self._seat(organization):
            return await repeated(lambda: self._changed(organization, customer_ids, since))

    async def _changed(
        self, organization: Organization, customer_ids: Sequence[str], since: Mark | None
    ) -> tuple[set[str], Mark]:
        async with self._database.transaction() as connection:
            await read_one_snapshot(connection)
            raw = await driver(connection)
            return await changed_customers.look(raw, organization.organization_id, customer_ids, since)

    def _reader(self, organization: Organization) -> _Reader:
        reader = self._readers.get(organization.organization_id)
        if reader is None:
            if len(self._readers) >= IDLE_ORGANIZATIONS:
                self._readers = {key: one for key, one in self._readers.items() if one.task is not None}
            reader = self._readers[organization.organization_id] = _Reader(
                organization, KnownOfChecks(organization.organization_id)
            )
        return reader

    async def _work(self, reader: _Reader) -> None:
        """Reads until nothing waits."""
        try:
            while reader.waiting:
                group = [reader.waiting.popleft()]
                size = len(group[0].usages)
                while reader.waiting and size + len(reader.waiting[0].usages) <= USAGES_AT_ONCE:
                    size += len(reader.waiting[0].usages)
                    group.append(reader.waiting.popleft())
                await self._answer(reader, group)
        finally:
            reader.task = None

    async def _answer(self, reader: _Reader, group: Sequence[_Waiting]) -> None:
        asked = [one for waiting in group for one in waiting.usages]
        try:
            async with self._seat(reader.organization):
                found = await repeated(lambda: self._reads.read(reader.known, asked))
        except BaseException as error:
            for waiting in group:
                if isinstance(error, Exception) and not waiting.done.done():
                    waiting.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.usages)
            if not waiting.done.done():  # its caller may have cancelled the call
                waiting.done.set_result([found[index] for index in range(start, end)])
            start = end

    def _seat(self, organization: Organization) -> AbstractAsyncContextManager[object]:
        """A connection in the organization's turn: the reads of many organizations leave some for other calls."""
        if self._gate is None:
            return contextlib.nullcontext()
        return self._gate.seat(organization.organization_id)
