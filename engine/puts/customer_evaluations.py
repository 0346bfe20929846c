"""Customer evaluations: customers whose facts, limits or alerts have changed are evaluated.

The call that made the change evaluates its customer after the commit, and answers after that. What a process left
when it ended, and what failed, is evaluated in the background by any process.
"""

import logging
from collections.abc import Sequence

from engine.limits import DEFAULT_LIMITS, EvaluationLimits
from engine.puts.customer_traces import CustomerTraces
from engine.puts.noted_customers import NotedCustomers
from engine.puts.together import Together
from engine.rules.transaction import Transactions
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.fair_semaphore import FairSemaphore
from runtime.tasks import BackgroundTask, FailureLog
from store.accounts import customer_evaluations
from store.identity.organizations import Organization
from store.postgres.database import Database, DatabaseUnavailable

logger = logging.getLogger(__name__)


class CustomerEvaluations:
    """Evaluates noted customers: for calls, and as a background task what no call evaluates."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transactions: Transactions,
        gate: FairSemaphore,
        *,
        limits: EvaluationLimits = DEFAULT_LIMITS.evaluations,
    ) -> None:
        """gate: the connections that calls may use; a caller must not hold a seat of it while it waits."""
        self._database = database
        self._clock = clock
        self._limits = limits
        self._traces: dict[
            int, CustomerTraces
        ] = {}  # by organization, while calls of it have their customers evaluated
        self._of_calls = NotedCustomers(transactions, gate, limits.gauges_at_once)
        self._in_background = NotedCustomers(transactions, None, limits.gauges_at_once)
        self._together = Together[str, None](
            self._evaluate, lambda customer_id: customer_id, limits.customers_at_once, once=True
        )
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger,
                "evaluations of changed customers failed and will be tried again",
                LogAction.BACKFILLS_FAILED,
                (DatabaseUnavailable,),
            ),
            name="customer-evaluations",
            interval=limits.polling_interval,
            backoff=Backoff(longest=limits.retry_interval),
        )

    def start(self) -> None:
        """Starts the task, with the customers that earlier processes left."""
        self._task.start()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is left waits for the next process."""
        await self._together.drain()
        await self._task.stop()

    async def evaluate(self, organization: Organization, customer_id: str) -> None:
        """Evaluates a customer whose change is committed, unless that has been done. Raises DatabaseUnavailable.

        What cannot be evaluated is logged and tried again later: the change is committed. Together with other
        customers that wait.
        """
        traces = self._traces.setdefault(organization.organization_id, CustomerTraces())
        try:
            with traces.of_this_call(customer_id):
                await self._together.ask(organization, customer_id)
        finally:
            if not traces:
                self._traces.pop(organization.organization_id, None)

    async def _evaluate(self, organization: Organization, customer_ids: Sequence[str]) -> Sequence[None]:
        traces = self._traces.get(organization.organization_id)
        await self._of_calls.evaluate(organization, customer_ids, traces or None)
        return [None] * len(customer_ids)

    async def _work(self) -> None:
        while await self.run_once():
            pass

    async def run_once(self) -> bool:
        """Evaluates the due customers of each organization, a number of them at a time; returns whether any was due.

        Customers that another process evaluates at present are left out.
        """
        async with self._database.transaction() as connection:
            due = await customer_evaluations.due(connection, self._clock.now(), self._limits.customers_at_once)
        done = [
            await self._in_background.evaluate(Organization(*organization), customer_ids)
            for organization, customer_ids in due.items()
        ]
        return any(done)
