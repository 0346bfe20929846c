"""Backfills: a new or changed alert is evaluated on what exists, in small transactions, by any replica that is free.

Ingest does not wait for a backfill: an event that moves a gauge evaluates it for the alert if no backfill has done
so. A backfill only has to find the customers that send no usage at present.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

from engine.facts.one_alert import evaluate_alert
from engine.limits import DEFAULT_LIMITS, BackfillLimits
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction, Transactions
from evaluator.alerts import AlertRule
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.alerts import backfills
from store.alerts.backfills import Backfill
from store.identity.organizations import Organization
from store.notifications import evaluation_failures
from store.postgres.database import Database, DatabaseUnavailable
from webhooks.operator_events import EvaluationFailure

BACKFILLS_AT_ONCE = 50  # of one organization that one round finds; other replicas may work on some of them

logger = logging.getLogger(__name__)


class Backfills:
    """The task that runs the backfills that alerts are waiting for."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        rules: RulesRegistry,
        *,
        limits: BackfillLimits = DEFAULT_LIMITS.backfills,
    ) -> None:
        self._database = database
        self._clock = clock
        self._transactions = Transactions(database, clock, grace, rules)
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger, "backfills failed and will be tried again", LogAction.BACKFILLS_FAILED, (DatabaseUnavailable,)
            ),
            name="backfills",
            interval=limits.polling_interval,
            backoff=Backoff(longest=limits.retry_interval),
        )
        self._customers_per_step = limits.customers_per_step
        self._sizes: dict[Backfill, int] = {}  # customers of the next step, of backfills in which one failed
        self._passed_over: set[Backfill] = set()
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
        while await self.run_once():
            pass

    async def run_once(self) -> bool:
        """Runs one step of one backfill of each organization that has any; returns whether there was any.

        Backfills that another replica works on are left out. The next round finds those that have begun meanwhile. So
        a backfill waits for one step of each other organization, however many backfills these have; and the backfills
        of one organization take turns, too.
        """
        async with self._database.transaction() as connection:
            waiting = await backfills.waiting(connection, BACKFILLS_AT_ONCE, self._last)
        self._last = {of_one[0].organization_id: self._last.get(of_one[0].organization_id, "") for of_one in waiting}
        return any([await self._step_of_one(of_one) for of_one in waiting])

    async def _step_of_one(self, waiting: Sequence[Backfill]) -> bool:
        """Runs one step of the first of an organization's backfills that is free and does not fail."""
        for backfill in waiting:
            self._last[backfill.organization_id] = backfill.alert_id
            try:
                if await self._around_failures(backfill):
                    return True
            except DatabaseUnavailable as error:
                if not error.failure.contained:
                    raise
                # Its other backfills would wait for the same lock, one after the other, and all organizations with
                # them.
                return False
            except Exception:
                # It waits for its next turn; those behind it do not wait for it.
                logger.exception(
                    "the backfill of alert %s failed and will be tried again",
                    backfill.alert_id,
                    extra={"action": LogAction.BACKFILL_FAILED, "alert_id": backfill.alert_id},
                )
        return False

    async def _around_failures(self, backfill: Backfill) -> bool:
        """Runs one step of a backfill; where it fails in ever smaller ones, past a customer that cannot be evaluated.

        So one customer costs a backfill some transactions, and the customers after it are still evaluated.
        """
        size = self._sizes.get(backfill, self._customers_per_step)
        try:
            worked = await self._step(backfill, size)
        except DatabaseUnavailable:
            raise
        except Exception:
            if size > 1:
                self._sizes[backfill] = size // 2
                logger.warning(
                    "a step of the backfill of alert %s failed; it goes on in smaller ones",
                    backfill.alert_id,
                    exc_info=size == self._customers_per_step,
                    extra={"action": LogAction.BACKFILL_FAILED, "alert_id": backfill.alert_id},
                )
                return True
            worked = await self._pass_over(backfill)
        if size < self._customers_per_step:
            self._sizes[backfill] = min(size * 2, self._customers_per_step)
        return worked

    async def _step(self, backfill: Backfill, size: int) -> bool:
        """Evaluates the next `size` customers of a backfill; returns False when another replica works on it."""
        async with self._transactions.open(_organization(backfill)) as transaction:
            after = await backfills.claim(transaction.connection, backfill)
            if after is None:
                return False
            rule = await transaction.rule(backfill.alert_id)
            customers: list[str] = []
            if rule is not None:  # else it was archived since
                customers = await _next_customers(transaction, rule, after, size)
                await evaluate_alert(transaction, rule, customers)
            last = customers[-1] if len(customers) == size else self._end(backfill)
            await backfills.advance(transaction.connection, transaction.organization_id, backfill.alert_id, last)
        return last != backfills.FROM_THE_BEGINNING

    async def _pass_over(self, backfill: Backfill) -> bool:
        """Leaves out the next customer until the backfill has come to its end and begins once more.

        Writes an operator event, once an hour for each alert.
        """
        async with self._transactions.open(_organization(backfill)) as transaction:
            connection, organization_id = transaction.connection, transaction.organization_id
            after = await backfills.claim(connection, backfill)
            rule = await transaction.rule(backfill.alert_id)
            if after is None or rule is None:
                return after is not None
            customers = await _next_customers(transaction, rule, after, 1)
            for customer_id in customers:
                failure = EvaluationFailure(backfill.alert_id, customer_id, None)
                await evaluation_failures.add(connection, organization_id, [failure], self._clock.now())
                logger.error(
                    "alert %s could not be evaluated for a customer and will be tried again",
                    backfill.alert_id,
                    extra={
                        "action": LogAction.BACKFILL_FAILED,
                        "alert_id": backfill.alert_id,
                        "customer_id": customer_id,
                    },
                )
            self._passed_over.add(backfill)
            last = customers[-1] if customers else self._end(backfill)
            await backfills.advance(connection, organization_id, backfill.alert_id, last)
        return last != backfills.FROM_THE_BEGINNING

    def _end(self, backfill: Backfill) -> str | None:
        """The progress after the last customer: None (complete), or the beginning if a customer was left out."""
        self._sizes.pop(backfill, None)
        if backfill not in self._passed_over:
            return None
        self._passed_over.discard(backfill)
        return backfills.FROM_THE_BEGINNING


def _organization(backfill: Backfill) -> Organization:
    return Organization(backfill.organization_id, backfill.organization)


async def _next_customers(transaction: Transaction, rule: AlertRule, after: str, limit: int) -> list[str]:
    """The next customers that the alert may cover."""
    return await backfills.customers(transaction.connection, transaction.organization_id, rule.scope, after, limit)
