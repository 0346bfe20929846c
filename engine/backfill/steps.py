"""Steps of single backfills, each one or two transactions, and what is known of a backfill between two steps.

Where a step fails, the backfill goes on in smaller ones, and past a customer that cannot be evaluated.
"""

import logging
import time
from collections.abc import Set
from itertools import islice
from typing import NamedTuple

from engine.backfill.pace import StepSize
from engine.backfill.parts import Part, Rest, count_ahead, evaluate_part, evaluate_rest
from engine.backfill.quiet import settle_quiet
from engine.limits import BackfillLimits
from engine.rules.transaction import Transaction, Transactions
from evaluator.alerts import AlertRule
from runtime.actions import LogAction
from runtime.clock import Clock
from store.alerts import backfills
from store.alerts.backfills import Backfill, Claimed, Progress
from store.identity.organizations import Organization
from store.notifications import evaluation_failures
from store.postgres.database import Database, DatabaseUnavailable
from store.usage.counted_groups import large_customers
from webhooks.operator_events import EvaluationFailure

# Below this share of a step's customers with a quiet gauge, the backfill does not look for quiet gauges any more.
LEAST_SETTLED = 0.25

logger = logging.getLogger(__name__)


class _LargeCustomer(Exception):
    """The next customer has so many events that they have to be counted while no lock is held."""

    def __init__(self, progress: Progress, customer_id: str) -> None:
        super().__init__("a customer has very many events")
        self.progress = progress
        self.customer_id = customer_id


class _Settled(NamedTuple):
    """Customers whose quiet gauges are up to date. complete: the backfill has gone on to the customers after them.

    epoch: of the rules under which they are.
    """

    complete: bool = False
    customer_ids: Set[str] = frozenset()
    epoch: int = 0

    def under(self, rule: AlertRule) -> Set[str]:
        """These customers, or none of them if the alert was changed since."""
        return self.customer_ids if rule.changed_epoch <= self.epoch else frozenset()


class BackfillSteps:
    """The steps of the backfills on which this process works."""

    def __init__(self, database: Database, clock: Clock, transactions: Transactions, limits: BackfillLimits) -> None:
        self._database = database
        self._clock = clock
        self._transactions = transactions
        self._limits = limits
        self._sizes: dict[Backfill, StepSize] = {}  # customers
        self._unsettled: set[Backfill] = set()  # those with few quiet gauges
        self._rests: dict[Backfill, Rest] = {}  # what is left of customers that have too many gauges for one step

    def forget_organizations(self, waiting: Set[int]) -> None:
        """Forgets what it knows of organizations of which no backfill is waiting any more."""
        self._sizes = {one: size for one, size in self._sizes.items() if one.organization_id in waiting}
        self._rests = {one: rest for one, rest in self._rests.items() if one.organization_id in waiting}
        self._unsettled = {one for one in self._unsettled if one.organization_id in waiting}

    async def around_failures(self, backfill: Backfill) -> bool:
        """Runs one step of a backfill; where it fails in ever smaller ones, past a customer that cannot be evaluated.

        So one customer costs a backfill some transactions, and the customers after it are still evaluated.
        """
        size = self._sizes.get(backfill)
        if size is None:
            largest = self._limits.customers_per_step if backfill.customer_id is None else 1
            size = self._sizes[backfill] = StepSize(self._limits, largest)
        try:
            return await self._step(backfill, size.size)
        except DatabaseUnavailable:
            raise
        except Exception:
            self._rests.pop(backfill, None)
            if size.size > 1:
                logger.warning(
                    "a step of the backfill of alert %s failed; it goes on in smaller ones",
                    backfill.alert_id,
                    exc_info=not size.reduced,
                    extra={"action": LogAction.BACKFILL_FAILED, "alert_id": backfill.alert_id},
                )
                size.failed()
                return True
            return await self._pass_over(backfill)

    async def _step(self, backfill: Backfill, size: int) -> bool:
        """Evaluates at most `size` customers of a backfill; returns False when another replica works on it."""
        settled = await self._settle(backfill)
        if settled is None:
            return False
        if settled.complete:
            return True
        try:
            return await self._step_of_gauges(backfill, size, settled)
        except _LargeCustomer as large:
            rest = await count_ahead(self._transactions, self._database, backfill, large.progress, large.customer_id)
            if rest is not None:
                self._rests[backfill] = rest
            return True

    async def _step_of_gauges(self, backfill: Backfill, size: int, settled: _Settled) -> bool:
        """The part of `_step` that evaluates gauges one by one, without those of the customers in `settled`.

        A change of the alert that waited for the transaction before this one comes first, and evaluates all anew.
        """
        started = time.perf_counter()
        async with self._transactions.open(organization_of(backfill)) as transaction:
            claimed = await backfills.claim(transaction.connection, backfill)
            if claimed is None:
                return False
            rule = await transaction.rule(backfill.alert_id)
            part, more = None, False
            if rule is not None:  # else it was archived since
                done = settled.under(rule)
                part, more = await self._evaluate(transaction, backfill, rule, claimed.progress, size, done)
            if part is not None and not backfills.may_complete(transaction.driver):
                more = True  # the next step finds no customer
            reached = claimed._replace(progress=part.progress) if part is not None and more else _end(claimed)
            await backfills.advance(transaction.connection, transaction.organization_id, backfill.alert_id, reached)
        if part is not None and more:
            self._keep(backfill, part, time.perf_counter() - started)
        else:
            self._forget(backfill)
        return reached != Claimed()

    async def _settle(self, backfill: Backfill) -> _Settled | None:
        """Brings the quiet gauges of the next customers up to date; returns None when another replica works on it.

        Goes to the next customers only if that was all, and if there may be more of them. A step of one customer does
        not look for quiet gauges: where it fails, the next customer is the one that failed, and is passed over.
        """
        if backfill.customer_id is not None or backfill in self._unsettled or backfill in self._rests:
            return _Settled()
        if self._sizes[backfill].size == 1:
            return _Settled()
        async with self._transactions.open(organization_of(backfill)) as transaction:
            claimed = await backfills.claim(transaction.connection, backfill)
            if claimed is None:
                return None
            rule = await transaction.rule(backfill.alert_id)
            if rule is None or claimed.progress.within is not None:
                return _Settled()
            page = self._limits.quiet_per_step
            customers = await _next_customers(transaction, rule, claimed.progress, page)
            settled = await settle_quiet(transaction, rule, customers)
            complete = len(customers) == page == len(settled)
            if complete:
                await backfills.advance(
                    transaction.connection,
                    transaction.organization_id,
                    backfill.alert_id,
                    claimed._replace(progress=Progress(customers[-1])),
                )
        if len(settled) < len(customers) * LEAST_SETTLED:
            self._unsettled.add(backfill)
        return _Settled(complete, settled, transaction.epoch)

    async def _evaluate(
        self,
        transaction: Transaction,
        backfill: Backfill,
        rule: AlertRule,
        progress: Progress,
        size: int,
        settled: Set[str],
    ) -> tuple[Part | None, bool]:
        """Evaluates the customers after `progress` if there are any; returns whether there may be more after that.

        settled: customers for which the alert is evaluated already.
        """
        limit, evaluations = self._limits.gauges_per_step, self._limits.evaluations_per_step
        rest = self._rests.get(backfill)
        if rest is not None and rest.progress == progress:
            part = await evaluate_rest(transaction, rule, rest, limit, evaluations)
            if part is not None:
                return part, True
        size = min(size, self._most_customers(transaction, rule))
        page = self._limits.quiet_per_step if settled else size
        customers = await _next_customers(transaction, rule, progress, page)
        if not customers:
            return None, False
        first_left_out = next(islice((one for one in customers if one not in settled), size, None), None)
        wanted = customers if first_left_out is None else customers[: customers.index(first_left_out)]
        small = await self._before_large(transaction, rule, wanted)
        if not small:
            raise _LargeCustomer(progress, customers[0])
        part = await evaluate_part(transaction, rule, progress, small, limit, settled, max_evaluations=evaluations)
        if part.customers < len(small):
            self._sizes[backfill].cut(part.customers)
        return part, len(customers) == page or part.customers < len(customers)

    def _most_customers(self, transaction: Transaction, rule: AlertRule) -> int:
        """The most customers of a step. Each alert that measures the same facts reads them of each customer."""
        measure = rule.measure
        if not measure.of_facts:
            return self._limits.customers_per_step
        indexes = transaction.router.wide.covering((rule.scope.plan_id,))
        alike = sum(one.measure == measure for index in indexes for one in index.on_facts)
        return max(self._limits.evaluations_per_step // max(alike, 1), 1)

    async def _before_large(self, transaction: Transaction, rule: AlertRule, customers: list[str]) -> list[str]:
        """The customers before the first one whose groups have to be counted from very many events."""
        measure = rule.measure
        if measure.of_facts or measure.contract_fields or not rule.groups:
            return customers
        large = await large_customers(
            transaction.driver, transaction.organization_id, customers, self._limits.large_customer
        )
        first = next((index for index, customer in enumerate(customers) if customer in large), len(customers))
        return customers[:first]

    def _keep(self, backfill: Backfill, part: Part, seconds: float) -> None:
        """Notes what a step took, and what it left of a customer."""
        if part.customers:
            self._sizes[backfill].took(seconds)
        if part.rest is None:
            self._rests.pop(backfill, None)
        else:
            self._rests[backfill] = part.rest

    async def _pass_over(self, backfill: Backfill) -> bool:
        """Leaves out the next customer until the backfill has come to its end and begins once more.

        Writes an operator event, once an hour for each alert.
        """
        async with self._transactions.open(organization_of(backfill)) as transaction:
            connection, organization_id = transaction.connection, transaction.organization_id
            claimed = await backfills.claim(connection, backfill)
            rule = await transaction.rule(backfill.alert_id)
            if claimed is None or rule is None:
                return claimed is not None
            customers = await _next_customers(transaction, rule, claimed.progress, 1)
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
            reached = Claimed(Progress(customers[-1]), passed_over=True) if customers else _end(claimed)
            await backfills.advance(connection, organization_id, backfill.alert_id, reached)
        if customers:
            self._sizes[backfill].took(0)
        else:
            self._forget(backfill)
        return reached != Claimed()

    def _forget(self, backfill: Backfill) -> None:
        """Forgets what it knows of a backfill that has come to its end."""
        self._sizes.pop(backfill, None)
        self._rests.pop(backfill, None)
        self._unsettled.discard(backfill)


def _end(claimed: Claimed) -> Claimed | None:
    """What follows the last customer: None (complete), or the beginning if a customer was passed over."""
    return Claimed() if claimed.passed_over else None


def organization_of(backfill: Backfill) -> Organization:
    """The organization of a backfill."""
    return Organization(backfill.organization_id, backfill.organization)


async def _next_customers(transaction: Transaction, rule: AlertRule, progress: Progress, limit: int) -> list[str]:
    """The next customers that the alert may cover."""
    after = progress.customer_id
    return await backfills.customers(transaction.driver, transaction.organization_id, rule.scope, after, limit)
