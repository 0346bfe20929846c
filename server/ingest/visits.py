"""Visits: what existed before an alert did is evaluated for it, in small transactions, by whichever replica is free.

Ingest does not wait for a visit: an event that moves a gauge which was not visited yet visits it in passing. So a
visit only has to find those customers that send nothing at the moment.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import timedelta

from evaluator.alerts import AlertRule
from evaluator.gauges import Group
from evaluator.routing import Customer, Router, Target, Watch
from runtime.clock import Clock
from server.accounts import readings
from server.accounts.changes import catch_up, evaluate_readings
from server.ingest.evaluation import Evaluation, Movement, Subject, before_fold
from server.ingest.rules import Rules
from store import facts, gauges, organizations, visiting, wallets
from store.database import Connection, Database, DatabaseUnavailable, driver
from store.keys import Organization
from store.visiting import Due

CUSTOMERS_PER_VISIT = 500  # customers of one transaction
VISITS_AT_ONCE = 50  # alerts that take turns
POLLING_INTERVAL = 5.0  # seconds; for visits that another replica left when it died
RETRY_INTERVAL = 1.0  # seconds, while the database is away

logger = logging.getLogger(__name__)


class Visits:
    """The task that carries out the visits that alerts are waiting for."""

    def __init__(self, database: Database, clock: Clock, grace: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._grace = grace
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rules: dict[int, Rules] = {}

    def start(self) -> None:
        """Begins to work, with what earlier processes left."""
        self._task = asyncio.create_task(self._run(), name="visits")

    def wake(self, organization_id: int) -> None:
        """Says that an alert of that organization was created or changed; to be called after the commit."""
        self._woken.set()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is left waits for the next process."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            pause = POLLING_INTERVAL
            try:
                while await self.visit_once():
                    pass
            except DatabaseUnavailable:
                pause = RETRY_INTERVAL
            except Exception:
                logger.exception("visits failed and will be tried again", extra={"action": "visits_failed"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def visit_once(self) -> bool:
        """One step of each visit that waits and that nobody else is at; returns whether there was any."""
        async with self._database.transaction() as connection:
            waiting = await visiting.due(connection, VISITS_AT_ONCE)
        worked = False
        for visit in waiting:
            try:
                worked |= await self._step(visit)
            except DatabaseUnavailable:
                raise
            except Exception:
                # It waits for the next round; those behind it do not wait for it.
                logger.exception(
                    "the visit of alert %s failed and will be tried again",
                    visit.alert_id,
                    extra={"action": "visit_failed", "alert_id": visit.alert_id},
                )
        return worked

    async def _step(self, visit: Due) -> bool:
        """Evaluates the next customers of a visit; returns False when another replica is at it."""
        organization = Organization(visit.organization_id, visit.organization)
        async with self._database.transaction() as connection:
            epoch = await organizations.share(connection, visit.organization_id)
            after = await visiting.claim(connection, visit)
            if after is None:
                return False
            rules = self._rules.setdefault(visit.organization_id, Rules(visit.organization_id))
            router = await rules.router(connection, epoch)
            rule = router.alerts.get(visit.alert_id)
            customers: list[str] = []
            if rule is not None:  # else it was archived since
                raw = await driver(connection)
                customers = await visiting.customers(
                    connection, visit.organization_id, rule.scope, after, CUSTOMERS_PER_VISIT
                )
                if rule.measure.of_facts:
                    await self._look_at_facts(connection, organization, router, rule, customers)
                elif watches := await self._watches(raw, visit.organization_id, router, rule, customers):
                    await self._evaluate(raw, organization, router, watches)
            come_to = customers[-1] if len(customers) == CUSTOMERS_PER_VISIT else None
            await visiting.advance(connection, visit.organization_id, visit.alert_id, come_to)
        return True

    async def _look_at_facts(
        self,
        connection: Connection,
        organization: Organization,
        router: Router,
        rule: AlertRule,
        customer_ids: Sequence[str],
    ) -> None:
        """Evaluates an alert on facts for those of the customers that it covers."""
        organization_id, now = organization.organization_id, self._clock.now()
        # What is read must not change before its gauge is locked.
        held = await wallets.lock(connection, organization_id, customer_ids)
        found = await facts.customers(await driver(connection), organization_id, customer_ids)
        overdue = {
            customer: due
            for customer in found
            if (due := held[customer.customer_id].due_time) is not None and due <= now
        }
        if overdue:
            await catch_up(connection, organization, router, overdue, now)
        # All alerts that watch the same gauges: what trips them is written anew.
        covered = [
            (customer, [alike for alike in router.fact_rules(customer) if alike.measure == rule.measure])
            for customer in found
            if rule.scope.covers(customer.customer_id, None, customer.plan_id)
        ]
        look = await readings.of_everything(connection, organization_id, covered, now, self._grace)
        await evaluate_readings(connection, organization, router.epoch, look.found, now, first_look=True)
        await wallets.expect_due(connection, organization_id, look.next_times)

    async def _watches(
        self,
        raw: gauges.Connection,
        organization_id: int,
        router: Router,
        rule: AlertRule,
        customer_ids: Sequence[str],
    ) -> list[Watch]:
        """The gauges of the current period that the alert watches and that events have moved already."""
        found: list[Customer] = await facts.customers(raw, organization_id, customer_ids)
        router.customers.update((customer.customer_id, customer) for customer in found)
        if rule.measure.metric_id is not None:
            for metric in await facts.metrics(raw, organization_id, [rule.measure.metric_id]):
                router.metrics[metric.metric_id] = metric
        now = self._clock.now()
        targets: list[Target] = []
        if rule.measure.per_subscription:
            for one in await facts.subscriptions_of(raw, organization_id, customer_ids):
                router.subscriptions[one.customer_id, one.subscription_id] = one
                if rule.scope.covers(one.customer_id, one.subscription_id, one.plan_id):
                    target = router.target(rule.measure, one.customer_id, one.subscription_id, now)
                    targets += [target] if target else []
        else:
            for customer in found:
                if rule.scope.covers(customer.customer_id, None, customer.plan_id):
                    target = router.target(rule.measure, customer.customer_id, None, now)
                    targets += [target] if target else []
        groups: dict[int, list[Group]] = await visiting.groups(raw, organization_id, targets, rule.group_keys, now)
        watches = []
        for index, target in enumerate(targets):
            for group in groups.get(index, ()):
                watch = target.watch(group, now) if rule.selects(group) else None
                watches += [watch] if watch else []
        return watches

    async def _evaluate(
        self, raw: gauges.Connection, organization: Organization, router: Router, watches: Sequence[Watch]
    ) -> None:
        now = self._clock.now()
        locked = await gauges.lock(raw, organization.organization_id, [watch.gauge for watch in watches], now)
        subjects: list[Subject] = [
            before_fold(Movement(watch), locked[watch.gauge.gauge_id], set()) for watch in watches
        ]
        stale = [subject for subject in subjects if subject.stale]
        if stale:
            evaluation = Evaluation(raw, organization.organization_id, organization.name, router.epoch, now)
            await evaluation.run(stale)
