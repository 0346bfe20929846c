"""One group: changes of one organization that are made in one exclusive transaction, each with its own outcome."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.changes.open_change import Kind, OpenChange
from engine.limits import ChangeLimits
from runtime.clock import Clock
from runtime.tasks import is_cancelled
from store.audit import writing
from store.audit.entries import NewEntry
from store.identity import organizations
from store.postgres import pipelines
from store.postgres.database import Connection, Database, DatabaseUnavailable, driver
from store.postgres.failures import failure_of, is_fault_of_statement, unavailable
from store.postgres.savepoints import Savepoints


@dataclass(frozen=True, slots=True)
class ChangeOutcome:
    """What became of a change: its result, or the error that its caller gets."""

    result: Any = None
    error: BaseException | None = None


@dataclass(eq=False, slots=True)
class Member:
    """A change that waits for its group.

    rows: about how many rows it writes. keep: false, what it writes is rolled back. done: gets the outcome; cancelled
    when the caller has gone. joins: false, it is not made in one call with others of its kind. shares: false, its
    group has no other members. passed_over: a group has ended before it began, so it goes last no more.
    """

    kind: Kind[Any, Any]
    item: Any
    rows: int
    keep: bool
    done: asyncio.Future[Any]
    joins: bool = True
    shares: bool = True
    passed_over: bool = False
    outcome: ChangeOutcome | None = None

    def answer(self) -> None:
        """Gives the caller the outcome, if there is a caller."""
        if self.done.done() or self.outcome is None:
            return
        error = self.outcome.error
        if error is None:
            self.done.set_result(self.outcome.result)
        elif isinstance(error, asyncio.CancelledError):
            self.done.cancel()
        else:
            self.done.set_exception(error)


class _NothingKept(Exception):
    """Ends a transaction that wrote nothing, so that it does not raise the epoch."""


class ChangeGroup:
    """One transaction with the changes of `members`, in their order; those of one kind are made together."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        organization_id: int,
        members: list[Member],
        join: Callable[[], None],
        limits: ChangeLimits,
        max_alerts: int | None = None,
    ) -> None:
        """After `limits.seconds` under the lock no further change begins.

        join: adds to `members` those that came while the group waited for the lock, and need not be prepared.
        max_alerts: of the organization.
        """
        self._database = database
        self._clock = clock
        self._organization_id = organization_id
        self._members = members
        self._join = join
        self._limits = limits
        self._max_alerts = max_alerts
        self._locking: float | None = None  # when the lock was requested
        self._end = 0.0
        self._progress = False  # whether a change has an outcome, so that this group does not end without any

    async def run(self) -> float:
        """Runs the transaction and gives each member its outcome. Returns the seconds in which usage had to wait.

        A member without an outcome has to run again, alone if it shares no group any more. Raises nothing but a
        cancellation.
        """
        try:
            async with self._database.transaction() as connection:
                await self._work(connection)
        except _NothingKept:
            pass
        except DatabaseUnavailable as error:
            self._fail_all(error)
        except Exception as error:
            self._run_again_after(error)
        return 0.0 if self._locking is None else time.perf_counter() - self._locking

    def _fail_all(self, error: DatabaseUnavailable) -> None:
        """Gives each caller the failure of the database; each decides by itself whether it tries again."""
        if len(self._members) == 1:
            self._members[0].outcome = ChangeOutcome(error=error)
            return
        for member in self._members:
            own = unavailable(error.failure, error)
            own.__cause__ = error
            member.outcome = ChangeOutcome(error=own)

    def _run_again_after(self, error: Exception) -> None:
        """Finds out which member the error belongs to: each runs again, in a savepoint of its own or alone."""
        if len(self._members) == 1:
            self._members[0].outcome = ChangeOutcome(error=error)
            return
        joined = any(member.joins for member in self._members)
        for member in self._members:
            member.outcome, member.joins, member.shares = None, False, joined and member.shares

    async def _work(self, connection: Connection) -> None:
        steps = await self._prepared(connection, _steps(self._members))
        if not steps:
            raise _NothingKept
        self._locking = time.perf_counter()
        epoch = await organizations.begin_change(connection, self._organization_id)
        raw = await driver(connection)
        first = len(self._members)
        self._join()
        steps = _steps([*(member for step in steps for member in step), *self._members[first:]])
        # The clock is read under the lock: a new alert did not watch the events that came in while this waited.
        now = self._clock.now()
        trail = list[NewEntry]()
        last = OpenChange(
            connection,
            raw,
            self._organization_id,
            epoch,
            now,
            self._limits.spend_alerts,
            is_last=True,
            trail=trail,
            max_alerts=self._max_alerts,
        )
        self._end = time.perf_counter() + self._limits.seconds
        if len(steps) == 1:
            await self._only(last, steps[0])
        else:
            earlier, savepoints = replace(last, is_last=False), Savepoints(raw)
            for step in steps[:-1]:
                await self._step(earlier, savepoints, step)
            await self._step(last, savepoints, steps[-1])
        if not any(_is_kept(member) for step in steps for member in step):
            raise _NothingKept
        if trail:
            async with pipelines.pipeline(raw):
                await writing.write(raw, self._organization_id, trail, now)
                await pipelines.commit(raw)

    async def _prepared(self, connection: Connection, steps: list[list[Member]]) -> list[list[Member]]:
        """The steps that are left after what is done before the lock."""
        left = []
        for step in steps:
            items = [member.item for member in step]
            outcomes = await step[0].kind.prepare(connection, self._organization_id, items)
            for member, outcome in zip(step, outcomes, strict=True):
                if outcome is not None:
                    member.outcome = _outcome(outcome)
            if rest := [member for member in step if member.outcome is None]:
                left.append(rest)
        return left

    async def _only(self, change: OpenChange, step: Sequence[Member]) -> None:
        """Makes the changes of the only step. What they raise ends the transaction, so they need no savepoint."""
        outcomes = await step[0].kind.apply(change, [member.item for member in step])
        for member, outcome in zip(step, outcomes, strict=True):
            member.outcome = _outcome(outcome)

    async def _step(self, change: OpenChange, savepoints: Savepoints, step: Sequence[Member]) -> None:
        """Makes the changes of one kind in a savepoint; if that fails, each in its own."""
        if self._progress and time.perf_counter() >= self._end:
            for member in step:
                member.passed_over = True
            return
        error = await self._try(change, savepoints, step)
        if error is None:
            return
        if len(step) > 1:
            for member in step:
                member.joins = False
            earlier = replace(change, is_last=False)
            for member in step[:-1]:
                await self._step(earlier, savepoints, [member])
            await self._step(change, savepoints, step[-1:])
            return
        self._progress = True
        if is_fault_of_statement(error):
            # It may conflict with a neighbour: for example, ids are made of the epoch, which neighbours share.
            step[0].shares = False
        else:
            failure = failure_of(error)
            step[0].outcome = ChangeOutcome(error=error if failure is None else unavailable(failure, error))

    async def _try(self, change: OpenChange, savepoints: Savepoints, step: Sequence[Member]) -> BaseException | None:
        """Makes the changes in a savepoint. Returns why it is undone, or None. Raises what ends the group."""
        entries = len(change.trail)
        await savepoints.begin()
        try:
            outcomes = await step[0].kind.apply(change, [member.item for member in step])
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            # Something that the change awaited was cancelled, and not this group.
            await savepoints.undo()
            del change.trail[entries:]
            return error
        except Exception as error:
            failure = failure_of(error)
            if failure is not None and not failure.contained:
                raise
            await savepoints.undo()
            del change.trail[entries:]
            return error
        for member, outcome in zip(step, outcomes, strict=True):
            member.outcome = _outcome(outcome)
        self._progress = True
        if not step[0].keep:
            await savepoints.undo()
            del change.trail[entries:]
        return None


def _steps(members: Sequence[Member]) -> list[list[Member]]:
    """The members by kind; a change that is not kept is a step of its own, because it is undone.

    Without an exception for those that were passed over, changes that go last would never begin while others come.
    """
    steps: dict[object, list[Member]] = {}
    for member in members:
        steps.setdefault(member.kind if member.keep and member.joins else member, []).append(member)
    return sorted(steps.values(), key=lambda step: step[0].kind.goes_last and not step[0].passed_over)


def _outcome(outcome: object) -> ChangeOutcome:
    return ChangeOutcome(error=outcome) if isinstance(outcome, Exception) else ChangeOutcome(outcome)


def _is_kept(member: Member) -> bool:
    return member.keep and member.outcome is not None and member.outcome.error is None
