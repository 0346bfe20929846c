"""Backfills: a new or changed alert is evaluated on what exists, in small transactions, by any replica that is free.

Ingest does not wait for a backfill: an event that moves a gauge evaluates it for the alert if no backfill has done
so. A backfill only has to find the customers that send no usage at present.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence

from engine.backfill.named import claim_and_evaluate
from engine.backfill.pace import Pace, StepSize
from engine.backfill.steps import BackfillSteps, organization_of
from engine.limits import DEFAULT_LIMITS, BackfillLimits
from engine.monitoring import BackfillsMonitoring
from engine.rules.transaction import Transactions
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.alerts import backfills
from store.alerts.backfills import Backfill
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.retries import past_conflicts

BACKFILLS_AT_ONCE = 50  # of one organization that one round finds; other replicas may work on some of them

logger = logging.getLogger(__name__)


def _never_busy() -> bool:
    return False


class Backfills:
    """The task that runs the backfills that alerts are waiting for."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transactions: Transactions,
        *,
        limits: BackfillLimits = DEFAULT_LIMITS.backfills,
        busy: Callable[[], bool] = _never_busy,
        monitoring: BackfillsMonitoring | None = None,
    ) -> None:
        """busy: whether the process is counting usage now, which backfills must not slow down."""
        self._monitoring = monitoring or BackfillsMonitoring()
        self._database = database
        self._clock = clock
        self._transactions = transactions
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger, "backfills failed and will be tried again", LogAction.BACKFILLS_FAILED, (DatabaseUnavailable,)
            ),
            name="backfills",
            interval=limits.polling_interval,
            backoff=Backoff(longest=limits.retry_interval),
        )
        self._limits = limits
        self._pace = Pace(limits, busy)
        self._steps = BackfillSteps(database, clock, self._transactions, limits)
        # By organization: how many alerts that name a customer a step takes, and those that are not taken together
        # with others, because they cannot be evaluated or have too many gauges.
        self._named_sizes: dict[int, StepSize] = {}
        self._alone: dict[int, set[str]] = {}
        self._last: dict[int, str] = {}  # the alert of each organization that had the last turn

    def start(self) -> None:
        """Starts the task, with the backfills that earlier processes left."""
        self._task.start()

    def wake(self, organization_id: int) -> None:
        """Says that an alert of that organization was created or changed; to be called after the commit."""
        self._task.wake()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is left waits for the next process."""
        await self._task.stop()

    async def _work(self) -> None:
        self._pace.begin()
        started = time.perf_counter()
        while await self.run_once():
            # Alerts that are created one after another share a step, which costs about as much for one as for twenty.
            elapsed = time.perf_counter() - started
            await asyncio.sleep(max(self._pace.pause_after(elapsed), self._limits.shortest_round - elapsed))
            self._pace.begin()
            started = time.perf_counter()

    async def run_once(self) -> bool:
        """Runs one step of each organization that has any backfills; returns whether there was any.

        Backfills that another replica works on are left out. The next round finds those that have begun meanwhile. So
        a backfill waits for one step of each other organization, however many backfills these have; and the backfills
        of one organization take turns, too.
        """
        async with self._database.transaction() as connection:
            waiting = await backfills.waiting(connection, BACKFILLS_AT_ONCE, self._last)
        self._forget_organizations({of_one[0].organization_id for of_one in waiting})
        return any([await self._measured_step(of_one) for of_one in waiting])

    async def _measured_step(self, waiting: Sequence[Backfill]) -> bool:
        began = time.perf_counter()
        moved = await self._step_of_one(waiting)
        if moved:
            self._monitoring.step(time.perf_counter() - began)
        return moved

    def _forget_organizations(self, waiting: set[int]) -> None:
        """Forgets what it knows of organizations of which no backfill is waiting any more."""
        self._last = {one: self._last.get(one, "") for one in waiting}
        self._named_sizes = {one: size for one, size in self._named_sizes.items() if one in waiting}
        self._alone = {one: alerts for one, alerts in self._alone.items() if one in waiting}
        self._steps.forget_organizations(waiting)

    async def _step_of_one(self, waiting: Sequence[Backfill]) -> bool:
        """Runs one step of the first of an organization's backfills that is free and does not fail."""
        named_tried = False
        for backfill in waiting:
            organization_id = backfill.organization_id
            together = self._goes_with_others(backfill)
            if together and named_tried:
                continue
            named_tried = named_tried or together
            before = self._last.get(organization_id, "")
            self._last[organization_id] = backfill.alert_id
            try:
                work = (
                    functools.partial(self._step_of_named, backfill, before)
                    if together
                    else functools.partial(self._steps.around_failures, backfill)
                )
                if await past_conflicts(work):
                    return True
            except DatabaseUnavailable as error:
                if not error.failure.contained:
                    raise
                # Its other backfills would wait for the same lock, one after the other, and all organizations with
                # them.
                return False
            except Exception:
                # It waits for its next turn; those behind it do not wait for it.
                self._monitoring.step_failed()
                logger.exception(
                    "the backfill of alert %s failed and will be tried again",
                    backfill.alert_id,
                    extra={"action": LogAction.BACKFILL_FAILED, "alert_id": backfill.alert_id},
                )
        return False

    def _goes_with_others(self, backfill: Backfill) -> bool:
        """Whether a backfill names a customer, so that a step takes many like it."""
        if backfill.customer_id is None:
            return False
        return backfill.alert_id not in self._alone.get(backfill.organization_id, ())

    async def _step_of_named(self, first: Backfill, before: str) -> bool:
        """Runs the backfills of alerts that name a customer, from `first` on, many in one transaction.

        Where that fails, the next step takes fewer of them from the same alert on, which is the one after `before`.
        The one that fails by itself is left to `BackfillSteps`.
        """
        organization_id = first.organization_id
        size = self._named_sizes.setdefault(organization_id, StepSize(self._limits, self._limits.alerts_per_step))
        alone = self._alone.setdefault(organization_id, set())
        started = time.perf_counter()
        try:
            async with self._transactions.open(organization_of(first)) as transaction:
                done = await claim_and_evaluate(
                    transaction,
                    first.alert_id,
                    size.size,
                    alone,
                    self._limits.gauges_per_step,
                    self._limits.evaluations_per_step,
                )
        except DatabaseUnavailable:
            raise
        except Exception:
            self._monitoring.step_failed()
            logger.warning(
                "a step of backfills from alert %s on failed; they go on in smaller ones",
                first.alert_id,
                exc_info=not size.reduced,
                extra={"action": LogAction.BACKFILL_FAILED, "alert_id": first.alert_id},
            )
            if size.size == 1:
                alone.add(first.alert_id)
            size.failed()
            self._last[organization_id] = before
            return True
        if done.alone is not None:
            alone.add(done.alone)
            return True
        if done.evaluated:
            self._last[organization_id] = done.evaluated[-1]
            size.took(time.perf_counter() - started)
        return bool(done.evaluated)
