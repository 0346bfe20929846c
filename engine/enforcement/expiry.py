"""Expiry: what reservations hold is given back when nothing has settled them at the end of their grace.

It is a durable timer: reservations are found in the database, so those of a process that was killed expire, too. Any
number of replicas may look for them; of one organization only one gives back at a time.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from engine.balances.running_drawdown import NOTHING_DRAWN
from engine.enforcement.ledger import Ledger
from engine.enforcement.monitoring import EnforcementMonitoring
from engine.enforcement.running_credits import RunningCredits, open_credits
from engine.ingest.counting import count
from engine.limits import DEFAULT_LIMITS, EnforcementLimits
from engine.meters.cells import Cells
from engine.meters.held_moves import held_moves, know_usage, open_keys
from engine.rules.transaction import Transaction, Transactions
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.reservations import GRACE
from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.tasks import BackgroundTask, FailureLog
from store.balances import wallets
from store.enforcement import expiring, meters, reservation_locks, reservations
from store.enforcement.expiring import Expiring
from store.identity.organizations import Organization
from store.postgres.database import Connection, Database, DatabaseUnavailable
from store.postgres.failures import NODE_LOST
from store.postgres.retries import past_conflicts
from store.rules import routing_facts

POLLING_INTERVAL = 0.5  # seconds; another replica may have made a reservation that expires earlier
RETRY_INTERVAL = 0.5  # seconds at most between two tries while the database is away
CONTENDED_PAUSE = 0.05  # seconds, while another replica works on all that is due
PUT_OFF = timedelta(seconds=30)  # for a reservation that could not be given back, until the next try
CONTENDED_PUT_OFF = timedelta(seconds=1)  # for reservations whose locks another transaction held for too long

logger = logging.getLogger(__name__)

_Key = tuple[int, str, str]  # organization, customer, reservation


class Expiry:
    """The task that gives back what expired reservations hold."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transactions: Transactions,
        *,
        limits: EnforcementLimits = DEFAULT_LIMITS.enforcement,
        monitoring: EnforcementMonitoring | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._transactions = transactions
        self._limits = limits
        self._monitoring = monitoring or EnforcementMonitoring()
        self._put_off: dict[_Key, datetime] = {}
        self._task = BackgroundTask(
            self.sweep,
            FailureLog(
                logger,
                "the expiry of reservations failed and will be tried again",
                LogAction.TIMERS_FAILED,
                (DatabaseUnavailable,),
            ),
            name="reservation-expiry",
            backoff=Backoff(longest=RETRY_INTERVAL),
        )

    def start(self) -> None:
        """Starts the task, with what expired while no process ran."""
        self._task.start()

    async def stop(self) -> None:
        """Ends after the current transaction's end or its rollback; whatever is due waits for the next process."""
        await self._task.stop()

    async def sweep(self) -> float:
        """Gives back all that has expired; returns the seconds until the next sweep."""
        while True:
            now = self._clock.now()
            self._put_off = {key: time for key, time in self._put_off.items() if time > now}
            async with self._database.transaction() as connection:
                coming = await expiring.next_expiry(connection)
                found = [] if coming is None or coming > now - GRACE else await self._find(connection, now - GRACE)
            due = [one for one in found if one.key not in self._put_off]
            if not due:
                break
            done = sum([await self._work_off(part) for part in _parts(due, self._limits.expiries)])
            if not done:
                return CONTENDED_PAUSE
        if coming is None or found:
            return POLLING_INTERVAL
        return min(max((coming + GRACE - now).total_seconds(), 0.0), POLLING_INTERVAL)

    async def _find(self, connection: Connection, until: datetime) -> list[Expiring]:
        limit = self._limits.sweep + len(self._put_off)
        found = await expiring.due(connection, until, limit)
        if len(found) == limit:
            # One organization may have more than one query finds: the others do not wait for it.
            found += await expiring.due(connection, until, limit, {one.organization_id for one in found})
        return found

    async def _work_off(self, due: Sequence[Expiring]) -> int:
        """Gives back reservations of one organization; if that fails, each of them alone. Returns how many ended."""
        try:
            return await past_conflicts(lambda: self._expire(due))
        except DatabaseUnavailable as error:
            if not error.failure.contained:
                raise
            if error.failure is NODE_LOST and len(due) > 1:  # those that need only other nodes can end
                return sum([await self._work_off([one]) for one in due])
            until = self._clock.now() + CONTENDED_PUT_OFF
            self._put_off.update((one.key, until) for one in due)
            return 0
        except Exception:
            if len(due) > 1:
                return sum([await self._work_off([one]) for one in due])
            self._put_off[due[0].key] = self._clock.now() + PUT_OFF
            logger.exception(
                "an expired reservation could not be given back; it will be tried again",
                extra={"action": LogAction.TIMER_FAILED, "customer_id": due[0].customer_id},
            )
            return 0

    async def _expire(self, due: Sequence[Expiring]) -> int:
        organization = Organization(due[0].organization_id, due[0].organization)
        keys = [(one.customer_id, one.reservation_id) for one in due]
        async with self._transactions.open(
            organization, customer_ids={one.customer_id for one in due}
        ) as transaction:
            if not await expiring.claim(transaction.driver, organization.organization_id):
                return 0
            ledger, cells = await self._load(transaction, keys)
            open_before = open_keys(ledger.records.values())
            with exact_arithmetic():
                ended = sum([ledger.expire(record) for record in ledger.records.values()])
            holds = held_moves(transaction.router, ledger.records.values(), open_before)
            if isinstance(ledger.credits, RunningCredits):
                await ledger.credits.write()
            if holds:
                await count(transaction, (), set(), False, drawdown=NOTHING_DRAWN, holds=holds)
            raw, changed = transaction.driver, cells.changed()
            async with raw.pipeline():
                if changed:
                    await meters.send_write(raw, organization.organization_id, changed, transaction.now)
                written = [record for record in ledger.records.values() if record.changed]
                if written:
                    await reservations.send_write(raw, organization.organization_id, written)
        self._monitoring.expired += ended
        return len(ledger.records)

    async def _load(self, transaction: Transaction, keys: Sequence[tuple[str, str]]) -> tuple[Ledger, Cells]:
        """Locks the wallets of the reservations, and then these, so that they begin to hold nothing more.

        Those that have begun to hold a part of another customer's meter meanwhile are left out, for the next sweep.
        """
        raw, organization_id = transaction.driver, transaction.organization_id
        before = await reservations.read(raw, organization_id, keys)
        cells = Cells(organization_id, transaction.router, transaction.now)
        for record in before.values():
            for held in record.held:
                cells.want_held(held.customer_id, held.key)
        customer_ids = cells.customer_ids | {customer_id for customer_id, _ in before}
        async with raw.pipeline():
            locked = await wallets.send_lock(raw, organization_id, customer_ids)
            read = await reservation_locks.send_lock(raw, organization_id, before)
        (_, drawn), records = await wallets.locked(locked), await reservations.records(read)
        records = {
            key: record
            for key, record in records.items()
            if all(held.customer_id in customer_ids for held in record.held)
        }
        for record in records.values():
            for held in record.held:
                cells.want_held(held.customer_id, held.key)
        await cells.send_read(raw)
        await cells.load(raw)
        await know_usage(transaction, [record.reservation for record in records.values()])
        if drawing := drawn.keys() - transaction.router.known.keys():
            for facts in await routing_facts.customers(raw, organization_id, drawing):
                transaction.router.know_customer(facts)
        draws = [
            (customer_id, record.draws)
            for (customer_id, _), record in records.items()
            if record.draws is not None and record.is_due(transaction.now)
        ]
        credits = await open_credits(transaction, drawn, (), draws)
        return Ledger(transaction.now, cells.by_key, records, credits), cells


def _parts(due: Sequence[Expiring], size: int) -> list[list[Expiring]]:
    """What is due in parts of which each is one transaction; organizations have turns, each in its own order."""
    by_organization: dict[int, list[Expiring]] = {}
    for one in due:
        by_organization.setdefault(one.organization_id, []).append(one)
    longest = max(map(len, by_organization.values()), default=0)
    return [
        of_one[start : start + size]
        for start in range(0, longest, size)
        for of_one in by_organization.values()
        if start < len(of_one)
    ]
