"""Timers: what only time changes (segments that begin or end, days that run out) is evaluated when it does.

A wallet stores the time of its customer's next timer. A transaction that locks the wallet evaluates the due timers
first (`engine.facts.due_timers`). So each timer is evaluated once, even when an event or a fact arrives at its time.
A recharge policy has a timer of its own, which is evaluated under the wallet, too (`engine.recharges`).
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from engine.facts.changed_customer import evaluate_noted_facts
from engine.facts.due_timers import catch_up
from engine.limits import DEFAULT_LIMITS, TimerLimits
from engine.monitoring import TimersMonitoring
from engine.recharges.evaluating import evaluate_recharges
from engine.rules.transaction import Transactions
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.balances import wallet_timers
from store.balances.wallet_timers import DueTimer
from store.identity.organizations import Organization
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import NODE_LOST
from store.postgres.retries import past_conflicts
from store.recharges import evaluation
from store.rules import routing_facts

POLLING_INTERVAL = 1.0  # seconds; another replica may have scheduled something earlier
RETRY_INTERVAL = 1.0  # seconds at most between two tries while the database is away
CONTENDED_PAUSE = timedelta(milliseconds=50)  # before the next try, while other transactions hold all due wallets
CONTENDED_PUT_OFF = timedelta(seconds=2)  # for customers whose locks another transaction held for too long
PUT_OFF = timedelta(seconds=30)  # for a customer whose evaluation failed, until the next try
LATE = timedelta(seconds=5)  # timers that are later than this are logged

logger = logging.getLogger(__name__)


class Timers:
    """The task that evaluates due timers."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transactions: Transactions,
        *,
        limits: TimerLimits = DEFAULT_LIMITS.timers,
        monitoring: TimersMonitoring | None = None,
    ) -> None:
        self._monitoring = monitoring or TimersMonitoring()
        self._database = database
        self._clock = clock
        self._limits = limits
        self._task = BackgroundTask(
            self.sweep,
            FailureLog(
                logger, "timers failed and will be tried again", LogAction.TIMERS_FAILED, (DatabaseUnavailable,)
            ),
            name="timers",
            backoff=Backoff(longest=RETRY_INTERVAL),
        )
        self._transactions = transactions
        self._put_off: dict[tuple[int, str], datetime] = {}

    def start(self) -> None:
        """Starts the task, with the timers that became due while no process ran."""
        self._task.start()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is due waits for the next process."""
        await self._task.stop()

    async def sweep(self) -> float:
        """Evaluates all due timers, in order; returns the seconds until the next one, as far as is known."""
        count, latest = 0, timedelta()
        while True:
            now = self._clock.now()
            self._put_off = {key: time for key, time in self._put_off.items() if time > now}
            async with self._database.transaction() as connection:
                limit = self._limits.sweep + len(self._put_off)
                found = await wallet_timers.due_timers(connection, now, limit)
                if len(found) == limit:
                    # One organization may have more timers than one query finds: the others do not wait for it.
                    others_than = {one.organization_id for one in found}
                    found += await wallet_timers.due_timers(connection, now, limit, others_than)
                coming = await wallet_timers.next_due_time(connection) if not found else None
            due = [one for one in found if (one.organization_id, one.customer_id) not in self._put_off]
            if not due:
                break
            done = sum([await self._work_off(part) for part in _parts(due, self._limits.customers_at_once)])
            if not done:
                coming = now + CONTENDED_PAUSE
                break
            count += done
            latest = max(latest, now - min(one.due_time for one in due))
        self._monitoring.swept(count, latest.total_seconds())
        if latest > LATE:
            logger.warning(
                "caught up with %d timers, up to %d s late",
                count,
                latest.total_seconds(),
                extra={"action": LogAction.TIMERS_CAUGHT_UP, "timers": count, "lateness": latest.total_seconds()},
            )
        if coming is None:
            return POLLING_INTERVAL
        return min(max((coming - now).total_seconds(), 0.0), POLLING_INTERVAL)

    async def _work_off(self, due: Sequence[DueTimer]) -> int:
        """Evaluates the due customers of one organization; if that fails, each of them alone.

        Returns how many it evaluated; the others fail, or another replica works on them.
        """
        try:
            return await past_conflicts(lambda: self._evaluate(due))
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            if error.failure is NODE_LOST and len(due) > 1:  # those that need only other nodes can be evaluated
                return sum([await self._work_off([one]) for one in due])
            # One of its customers, or the organization, is locked, or a node is away. Others are due as well.
            until = self._clock.now() + CONTENDED_PUT_OFF
            self._put_off.update(((one.organization_id, one.customer_id), until) for one in due)
            return 0
        except Exception:
            if len(due) > 1:
                return sum([await self._work_off([one]) for one in due])
            who = due[0].organization_id, due[0].customer_id
            self._put_off[who] = self._clock.now() + PUT_OFF
            logger.exception(
                "what was due for a customer failed and will be tried again",
                extra={"action": LogAction.TIMER_FAILED, "customer_id": due[0].customer_id},
            )
            return 0

    async def _evaluate(self, due: Sequence[DueTimer]) -> int:
        organization = Organization(due[0].organization_id, due[0].organization)
        organization_id = organization.organization_id
        customer_ids = [one.customer_id for one in due]
        async with self._transactions.open(organization, customer_ids=customer_ids) as transaction:
            await evaluate_noted_facts(transaction, customer_ids, only_free=True)
            # The transaction that holds the wallet of one of the others evaluates that one.
            held = await wallet_timers.claim_due(
                transaction.connection, organization_id, customer_ids, transaction.now
            )
            found = await routing_facts.customers(transaction.driver, organization_id, list(held))
            due_customers = {customer: held[customer.customer_id] for customer in found}
            await catch_up(transaction, due_customers)
            await evaluate_recharges(transaction, due_customers, {}, due=True)
            if ending := [customer.customer_id for customer in found if customer.being_erased]:
                await evaluation.end_timers(transaction.driver, organization_id, ending)
        return len(held)


def _parts(due: Sequence[DueTimer], size: int) -> list[list[DueTimer]]:
    """What is due in parts of which each is one transaction; organizations have turns, each in its own order.

    size: the most customers of one part.
    """
    by_organization: dict[int, list[DueTimer]] = {}
    for one in due:
        by_organization.setdefault(one.organization_id, []).append(one)
    longest = max(map(len, by_organization.values()), default=0)
    return [
        of_one[start : start + size]
        for start in range(0, longest, size)
        for of_one in by_organization.values()
        if start < len(of_one)
    ]
