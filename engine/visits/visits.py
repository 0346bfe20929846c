"""Visits: what existed before an alert did is evaluated for it, in small transactions, by whichever replica is free.

Ingest does not wait for a visit: an event that moves a gauge which was not visited yet visits it in passing. So a
visit only has to find those customers that send nothing at the moment.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

from engine.rules.rules import Rules
from engine.visits.customer_visits import look_at_customer
from engine.visits.limit_visits import look_again
from engine.visits.visiting import visit_customers
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.alerts import visits as visiting
from store.alerts.visits import Due
from store.identity import organizations
from store.identity.organizations import Organization
from store.limits.limits import LimitSubject
from store.notifications import evaluation_failures
from store.postgres.database import Connection, Database, DatabaseUnavailable
from webhooks.operator_events import EvaluationFailure

CUSTOMERS_PER_VISIT = 500  # customers of one transaction
VISITS_AT_ONCE = 50  # alerts of one organization that one look finds; others may be at work on some of them
POLLING_INTERVAL = 5.0  # seconds; for visits that another replica left when it died
RETRY_INTERVAL = 1.0  # seconds at most between two tries while the database is away

logger = logging.getLogger(__name__)


class Visits:
    """The task that carries out the visits that alerts are waiting for."""

    def __init__(self, database: Database, clock: Clock, grace: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._grace = grace
        self._task = BackgroundTask(
            self._work,
            FailureLog(
                logger, "visits failed and will be tried again", LogAction.VISITS_FAILED, (DatabaseUnavailable,)
            ),
            name="visits",
            interval=POLLING_INTERVAL,
            backoff=Backoff(longest=RETRY_INTERVAL),
        )
        self._rules: dict[int, Rules] = {}
        self._sizes: dict[Due, int] = {}  # customers of the next step, of visits in which one failed
        self._passed_over: set[Due] = set()
        self._last: dict[int, str] = {}  # the alert of each organization that had the last turn

    def start(self) -> None:
        """Begins to work, with what earlier processes left."""
        self._task.start()

    def wake(self, organization_id: int) -> None:
        """Says that an alert of that organization was created or changed; to be called after the commit."""
        self._task.wake()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is left waits for the next process."""
        await self._task.stop()

    async def look_again(
        self, connection: Connection, organization: Organization, epoch: int, subject: LimitSubject
    ) -> None:
        """Evaluates whom a limit limits that was changed in this transaction, see `limit_visits.look_again`.

        To be followed by `wake` after the commit.
        """
        await look_again(connection, organization, epoch, subject, self._clock.now(), self._grace)

    async def look_at_customer(
        self, organization: Organization, customer_id: str, *, subscriptions_only: bool = False
    ) -> None:
        """Evaluates alerts on usage for a customer that was changed, see `customer_visits.look_at_customer`."""
        rules = self._rules.setdefault(organization.organization_id, Rules(organization.organization_id))
        await look_at_customer(
            self._database,
            organization,
            rules,
            customer_id,
            self._clock.now(),
            self._grace,
            subscriptions_only=subscriptions_only,
        )

    async def _work(self) -> None:
        while await self.visit_once():
            pass

    async def visit_once(self) -> bool:
        """One step of one visit of each organization that has any which nobody else is at; whether there was any.

        The next round finds what has come meanwhile. So a visit waits for one step of each other organization,
        however many visits these have; and the visits of one organization take turns, too.
        """
        async with self._database.transaction() as connection:
            waiting = await visiting.due(connection, VISITS_AT_ONCE, self._last)
        self._last = {of_one[0].organization_id: self._last.get(of_one[0].organization_id, "") for of_one in waiting}
        return any([await self._step_of_one(of_one) for of_one in waiting])

    async def _step_of_one(self, waiting: Sequence[Due]) -> bool:
        """One step of the first of an organization's visits that nobody else is at and that does not fail."""
        for visit in waiting:
            self._last[visit.organization_id] = visit.alert_id
            try:
                if await self._around_failures(visit):
                    return True
            except DatabaseUnavailable as error:
                if not error.failure.contained:
                    raise
                # Its other visits would wait for the same lock, one after the other, and all organizations with them.
                return False
            except Exception:
                # It waits for its next turn; those behind it do not wait for it.
                logger.exception(
                    "the visit of alert %s failed and will be tried again",
                    visit.alert_id,
                    extra={"action": LogAction.VISIT_FAILED, "alert_id": visit.alert_id},
                )
        return False

    async def _around_failures(self, visit: Due) -> bool:
        """One step of a visit; where that fails in ever smaller ones, past the customer that cannot be evaluated.

        So one customer costs a visit some transactions, and does not keep all those after it from being visited.
        """
        size = self._sizes.get(visit, CUSTOMERS_PER_VISIT)
        try:
            worked = await self._step(visit, size)
        except DatabaseUnavailable:
            raise
        except Exception:
            if size > 1:
                self._sizes[visit] = size // 2
                logger.warning(
                    "a step of the visit of alert %s failed; it goes on in smaller ones",
                    visit.alert_id,
                    exc_info=size == CUSTOMERS_PER_VISIT,
                    extra={"action": LogAction.VISIT_FAILED, "alert_id": visit.alert_id},
                )
                return True
            worked = await self._pass_over(visit)
        if size < CUSTOMERS_PER_VISIT:
            self._sizes[visit] = min(size * 2, CUSTOMERS_PER_VISIT)
        return worked

    async def _pass_over(self, visit: Due) -> bool:
        """Leaves out the customer that comes next, until the visit has come to its end and begins once more.

        Operators are told, once an hour of each alert.
        """
        async with self._database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, visit.organization_id)
            after = await visiting.claim(connection, visit)
            rules = self._rules.setdefault(visit.organization_id, Rules(visit.organization_id))
            rule = (await rules.router(connection, epoch)).alerts.get(visit.alert_id)
            if after is None or rule is None:
                return after is not None
            customers = await visiting.customers(connection, visit.organization_id, rule.scope, after, 1)
            for customer_id in customers:
                failure = EvaluationFailure(visit.alert_id, customer_id, None)
                await evaluation_failures.add(connection, visit.organization_id, [failure], self._clock.now())
                logger.error(
                    "alert %s could not be evaluated for a customer and will be tried again",
                    visit.alert_id,
                    extra={"action": LogAction.VISIT_FAILED, "alert_id": visit.alert_id, "customer_id": customer_id},
                )
            self._passed_over.add(visit)
            come_to = customers[-1] if customers else self._end(visit)
            await visiting.advance(connection, visit.organization_id, visit.alert_id, come_to)
        return come_to != visiting.FROM_THE_BEGINNING

    def _end(self, visit: Due) -> str | None:
        """Where a visit goes on that has come to its end: where it began, if it had to leave anybody out."""
        self._sizes.pop(visit, None)
        if visit not in self._passed_over:
            return None
        self._passed_over.discard(visit)
        return visiting.FROM_THE_BEGINNING

    async def _step(self, visit: Due, size: int) -> bool:
        """Evaluates the next customers of a visit, so many; returns False when another replica is at it."""
        organization = Organization(visit.organization_id, visit.organization)
        async with self._database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, visit.organization_id)
            after = await visiting.claim(connection, visit)
            if after is None:
                return False
            rules = self._rules.setdefault(visit.organization_id, Rules(visit.organization_id))
            router = await rules.router(connection, epoch)
            rule = router.alerts.get(visit.alert_id)
            customers: list[str] = []
            if rule is not None:  # else it was archived since
                customers = await visiting.customers(connection, visit.organization_id, rule.scope, after, size)
                now = self._clock.now()
                await visit_customers(connection, organization, router, rule, customers, now, self._grace)
            come_to = customers[-1] if len(customers) == size else self._end(visit)
            await visiting.advance(connection, visit.organization_id, visit.alert_id, come_to)
        return come_to != visiting.FROM_THE_BEGINNING
