"""Noted customers: the transactions that evaluate customers of one organization and remove their notes.

Alerts on facts come first. Of the alerts on usage, and of those that were enabled for a customer, each has a
transaction of its own, for all customers: two of them in one would lock gauges out of order. All together in one
transaction is the normal case, because one alert watches the usage of most customers.
"""

import functools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from engine.backfill.parts import Part, evaluate_part, evaluate_rest
from engine.facts.changed_customer import Concerned, evaluate_claimed_facts, evaluate_facts, find_concerned
from engine.rules.event_traces import EventTraces
from engine.rules.transaction import Transaction, Transactions
from runtime.actions import LogAction
from runtime.fair_semaphore import FairSemaphore
from store.accounts import customer_evaluations
from store.accounts.customer_evaluations import Note
from store.alerts.backfills import Progress
from store.identity.organizations import Organization
from store.notifications import evaluation_failures
from store.postgres.database import DatabaseUnavailable
from store.postgres.failures import NODE_LOST
from store.postgres.retries import repeated
from webhooks.operator_events import EvaluationFailure

RENEWALS = 3
PUT_OFF = timedelta(seconds=30)  # for a customer that could not be evaluated, until the next try

logger = logging.getLogger(__name__)


class NotedCustomers:
    """Evaluates noted customers, those of calls or those of the background task."""

    def __init__(self, transactions: Transactions, gate: FairSemaphore | None, gauges_at_once: int) -> None:
        """gate: of the connections that calls may use. None: in the background, which waits for no other process.

        gauges_at_once: gauges of one transaction.
        """
        self._transactions = transactions
        self._gate = gate
        self._gauges_at_once = gauges_at_once

    async def evaluate(
        self, organization: Organization, customer_ids: Sequence[str], traces: EventTraces | None = None
    ) -> bool:
        """Evaluates those of the customers that have notes; returns whether there was any that is free.

        Where that fails for a reason other than the database, each customer is evaluated alone, and each alert of a
        customer alone. What cannot be evaluated is logged, and put off. Raises DatabaseUnavailable.

        traces: of the calls that changed the customers.
        """
        work = _Work(self._transactions, organization, self._gate, self._gauges_at_once, traces)
        try:
            return await work.together(customer_ids)
        except DatabaseUnavailable as error:
            if self._gate is None and error.failure is NODE_LOST and len(customer_ids) > 1:
                return any([await self.evaluate(organization, [one], traces) for one in customer_ids])
            if self._gate is None and error.failure.contained:
                return False  # one of the customers, or the organization, is locked: those of others are due as well
            raise
        except Exception:
            if len(customer_ids) > 1:
                return any([await self.evaluate(organization, [one], traces) for one in customer_ids])
            await work.apart(customer_ids[0])
            return True


@dataclass(frozen=True, slots=True)
class _Work:
    """The transactions of one evaluation."""

    transactions: Transactions
    organization: Organization
    gate: FairSemaphore | None
    gauges_at_once: int
    traces: EventTraces | None

    async def together(self, customer_ids: Sequence[str], renewals: int = RENEWALS) -> bool:
        """Evaluates customers in as few transactions as possible; returns whether there was any note.

        renewals: how often it begins again for customers whose facts change meanwhile, or one of whose alerts does.
        After that, the call that changes the facts evaluates them, or the background task.
        """
        found, left = await repeated(functools.partial(self._begin, customer_ids))
        waiting = Counter(one.note.customer_id for one, _ in left)
        by_alert: dict[str, list[Note]] = {}
        for one, alert_id in left:
            by_alert.setdefault(alert_id, []).append(one.note)
        missed = set[str]()
        for alert_id, notes in by_alert.items():
            waiting.subtract(note.customer_id for note in notes)
            complete = {note.customer_id for note in notes if not waiting[note.customer_id]} - missed
            missed |= await self._evaluate_alert(alert_id, notes, complete)
        if missed and renewals:
            await self.together(sorted(missed), renewals - 1)
        return found

    async def apart(self, customer_id: str) -> None:
        """Evaluates what a customer's note asks for step by step, past the steps that fail."""
        notes: list[Note] = []  # none, if another process holds the note
        concerned: list[Concerned] = []

        async def find() -> set[str]:
            async with self._claimed([customer_id]) as claimed:
                notes[:] = claimed.notes
                concerned[:] = await find_concerned(claimed.transaction, claimed.notes)
            return set()

        async def facts() -> set[str]:
            async with self._claimed([customer_id]) as claimed:
                await evaluate_claimed_facts(claimed.transaction, claimed.notes)
            return set() if claimed.notes else {customer_id}

        ended = [await self._try(find, customer_id, None)]
        for one in concerned:
            if one.on_facts:
                ended.append(await self._try(facts, customer_id, None))
            for rule in one.alone:
                step = functools.partial(self._evaluate_alert, rule.alert_id, [one.note], set())
                ended.append(await self._try(step, customer_id, rule.alert_id))
        await repeated(functools.partial(self._finish, customer_id, notes, ended))

    async def _begin(self, customer_ids: Sequence[str]) -> tuple[bool, list[tuple[Concerned, str]]]:
        """Evaluates alerts on facts, or the alert that has to be alone if it is the only one.

        Returns whether there was any note, and which alerts are left for each customer.
        """
        async with self._claimed(customer_ids) as claimed:
            transaction, notes = claimed.transaction, claimed.notes
            concerned = await find_concerned(transaction, notes)
            on_facts = [one for one in concerned if one.on_facts]
            left = [(one, rule.alert_id) for one in concerned for rule in one.alone]
            alerts = {rule.alert_id: rule for one in concerned for rule in one.alone}
            if on_facts:
                await evaluate_facts(transaction, on_facts)
            elif len(alerts) == 1:
                [rule] = alerts.values()
                known = {one.customer.customer_id: one.customer for one, _ in left}
                ids = sorted(known)
                part = await evaluate_part(transaction, rule, Progress(), ids, self.gauges_at_once, known=known)
                if part.progress == Progress(ids[-1]):
                    left = []
            kept = {one.note.customer_id for one, _ in left}
            await claimed.remove([note for note in notes if note.customer_id not in kept])
            await claimed.facts_evaluated([one.note for one in on_facts if one.note.customer_id in kept])
        return bool(notes), left

    async def _evaluate_alert(self, alert_id: str, notes: Sequence[Note], complete: set[str]) -> set[str]:
        """Evaluates one alert for noted customers; returns those that it misses.

        It misses those whose notes it does not get or were renewed, and all if the alert is not active any more: then
        other alerts on the same gauges, which it stood for, are still to be evaluated. complete: the ids of those for
        which it is the last alert.
        """
        missed = set[str]()
        part: Part | None = Part(Progress(), 0, 0)
        while part is not None:
            held = [note for note in notes if note.customer_id not in missed]
            step = functools.partial(self._evaluate_part, alert_id, held, complete - missed, part)
            missed_now, part = await repeated(step)
            missed |= missed_now
        return missed

    async def _evaluate_part(
        self, alert_id: str, notes: Sequence[Note], complete: set[str], before: Part
    ) -> tuple[set[str], Part | None]:
        """Evaluates the gauges after a part; returns the customers that it misses, and its part if more are left."""
        async with self._claimed([note.customer_id for note in notes]) as claimed:
            transaction, held = claimed.transaction, claimed.unchanged(notes)
            rule = await transaction.rule(alert_id)
            if rule is None:
                return {note.customer_id for note in notes}, None
            ids = {note.customer_id for note in held}
            missed = {note.customer_id for note in notes} - ids
            behind = sorted(one for one in ids if one > before.progress.customer_id)
            part: Part | None = None
            if before.rest is not None and before.rest.customer_id in ids:
                part = await evaluate_rest(transaction, rule, before.rest, self.gauges_at_once)
            if part is None and behind:
                part = await evaluate_part(transaction, rule, before.progress, behind, self.gauges_at_once)
            if part is not None and part.progress != Progress(behind[-1]):
                return missed, part
            await claimed.remove([note for note in held if note.customer_id in complete])
        return missed, None

    async def _finish(self, customer_id: str, notes: Sequence[Note], ended: Sequence["_Ended"]) -> None:
        """Removes a customer's note, or puts it off if a step failed, unless it was renewed meanwhile.

        Writes an operator event for each failure, once an hour for each alert.
        """
        async with self._claimed([customer_id]) as claimed:
            if failures := [one.failure for one in ended if one.failure is not None]:
                transaction = claimed.transaction
                await evaluation_failures.add(
                    transaction.connection, transaction.organization_id, failures, transaction.now
                )
            held = claimed.unchanged(notes)
            if held and not all(one.complete for one in ended):
                await claimed.put_off(customer_id)
            else:
                await claimed.remove(held)

    async def _try(self, step: Callable[[], Awaitable[set[str]]], customer_id: str, alert_id: str | None) -> "_Ended":
        """How a step ends; the steps after it do not wait for it. alert_id: None if it is not about one alert."""
        try:
            return _Ended(complete=not await repeated(step))
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.exception(
                "an alert could not be evaluated for a customer that was changed, and will be tried again",
                extra={"action": LogAction.BACKFILL_FAILED, "customer_id": customer_id, "alert_id": alert_id},
            )
            return _Ended(complete=False, failure=EvaluationFailure(alert_id, customer_id, None))

    @asynccontextmanager
    async def _claimed(self, customer_ids: Sequence[str]) -> AsyncIterator["_Claimed"]:
        """A transaction that holds the notes of these customers."""
        async with (
            self._seat(),
            self.transactions.open(self.organization, self.traces, customer_ids=customer_ids) as transaction,
        ):
            notes = await customer_evaluations.claim(
                transaction.driver, transaction.organization_id, customer_ids, only_free=self.gate is None
            )
            yield _Claimed(transaction, notes)

    @asynccontextmanager
    async def _seat(self) -> AsyncIterator[None]:
        if self.gate is None:
            yield
            return
        async with self.gate.seat(self.organization.organization_id):
            yield


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a step ended. complete: it evaluated the customer. failure: set if it failed, and did not only miss it."""

    complete: bool
    failure: EvaluationFailure | None = None


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A transaction, and the notes that it holds."""

    transaction: Transaction
    notes: list[Note]

    def unchanged(self, known: Sequence[Note]) -> list[Note]:
        """Those of the notes that were not renewed since they were read."""
        epochs = {note.customer_id: note.epoch for note in known}
        return [note for note in self.notes if epochs.get(note.customer_id) == note.epoch]

    async def remove(self, notes: Sequence[Note]) -> None:
        """Removes notes: their customers are evaluated."""
        await customer_evaluations.remove(self.transaction.driver, self.transaction.organization_id, notes)

    async def facts_evaluated(self, notes: Sequence[Note]) -> None:
        """Keeps notes only for what they have beside alerts on facts."""
        await customer_evaluations.facts_evaluated(self.transaction.driver, self.transaction.organization_id, notes)

    async def put_off(self, customer_id: str) -> None:
        """Lets the background task wait before it evaluates a customer again."""
        until = self.transaction.now + PUT_OFF
        await customer_evaluations.put_off(
            self.transaction.driver, self.transaction.organization_id, customer_id, until
        )
