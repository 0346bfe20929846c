"""Loading: what the requests of a commit name is read, and the wallets that protect it are locked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engine.enforcement.attempts import Attempt, Key, Surprise
from engine.enforcement.credits import Credits
from engine.enforcement.ledger import Ledger
from engine.enforcement.metering import Metered, metered_of, want_targets
from engine.enforcement.requests import EnforcementRefused, Extend, Release, Reserve, Settle
from engine.enforcement.running_credits import NO_CREDITS, open_credits
from engine.meters.cells import Cells
from engine.meters.known_targets import KnownTargets
from engine.rules.loading import Registered, knows
from engine.rules.organization_rules import OrganizationRules
from engine.rules.transaction import Transaction
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.enforcement.reservations import ReservationState
from evaluator.enforcement.usage import Usage
from evaluator.routing import Router
from store.balances import wallets
from store.balances.wallets import Wallet
from store.enforcement import reservation_locks, reservations
from store.enforcement.records import Record
from store.enforcement.reservation_locks import Comparison
from store.identity import organizations
from store.postgres import pipelines
from store.postgres.database import Cursor, DriverConnection
from store.postgres.row_locks import Sent
from store.usage import stored_ids

MOST_WALLETS = 100_000  # of one organization, of which a process knows that they exist


@dataclass(eq=False, slots=True)
class Needs:
    """What an attempt needs of what wallets protect.

    cells: the meters. customer_ids: of the wallets. reserved: the keys of reservations that may have to be made.
    ids: of the events that these would become, each with a time of its month.
    """

    cells: Cells
    customer_ids: set[str]
    reserved: Sequence[Key]
    ids: Collection[tuple[str, str, datetime]]


@dataclass(eq=False, slots=True)
class Plan:
    """Needs that were found with the cached rules before the transaction begins; valid at one epoch only."""

    needs: Needs
    epoch: int


@dataclass(eq=False, slots=True)
class _Sent:
    """Statements that were sent under the organization's lock, and what was needed."""

    needs: Needs
    locked: Sent
    changed: Comparison | None
    made: Sent | None
    taken: Cursor | None


@dataclass(eq=False, slots=True)
class Opened:
    """A transaction that holds the organization's lock.

    before: the reservations that are to be changed, as they are without a lock; but what a reservation is for never
    changes, and `load` finds whether the rest has. sent: where the attempt was planned.
    """

    standing: organizations.LockedOrganization
    before: dict[Key, Record]
    sent: _Sent | None


class Loader:
    """Loads what the commits of one organization need, one commit at a time.

    The ordinary way takes three round trips: the organization's lock, with the reservations that are to be changed;
    facts, where the router lacks any; wallets, with what they protect. Where the router knows all that is named, and
    no reservation is to be changed, the cached rules say what has to be locked, and all of it is one round trip. The
    epoch, which is read under the lock, shows whether these rules stand. If not, the transaction is rolled back.
    """

    def __init__(self, organization_id: int) -> None:
        self._organization_id = organization_id
        self._targets = KnownTargets()
        self._wallets = set[str]()  # customers that have a wallet, as far as is known

    def plan(
        self, router: Router, attempt: Attempt, registered: Registered, now: datetime, grace: timedelta
    ) -> Plan | None:
        """What the attempt needs; None where the ordinary way has to be taken."""
        if not attempt.planned or not all(isinstance(one, Reserve) for one in attempt.requests):
            return None
        named = _named(attempt, {})
        if not knows(router, named):
            return None
        registered.named.update([usage.customer_id for usage in named])  # before another commit may forget them
        self._meter(router, attempt, now, grace)
        return Plan(self._needs(router, attempt, {}, registered, now, grace), router.epoch)

    async def begin(self, raw: DriverConnection, attempt: Attempt, plan: Plan | None) -> Opened:
        """Begins the transaction, takes the organization's lock, shared, and reads what can be read with it.

        Raises Surprise if the plan does not hold.
        """
        named = {
            (one.customer_id, one.reservation_id)
            for one in attempt.requests
            if isinstance(one, Settle | Release | Extend)
        }
        read: Sent | None = None
        sent: _Sent | None = None
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            locked = await organizations.send_lock_shared(raw, self._organization_id)
            if plan is not None:
                sent = await self._send(raw, plan.needs, {})
            elif named:
                read = await reservations.send_read(raw, self._organization_id, named)
        standing = await organizations.locked(locked)
        if plan is not None and plan.epoch != standing.epoch:
            raise Surprise
        return Opened(standing, {} if read is None else await reservations.records(read), sent)

    async def load_facts(
        self,
        transaction: Transaction,
        rules: OrganizationRules,
        attempt: Attempt,
        opened: Opened,
        registered: Registered,
    ) -> None:
        """Reads the facts of all usage; registers what is unknown. Finds what each request of usage is about."""
        router = transaction.router
        # Of a planned attempt, it only counts the names.
        named = _named(attempt, opened.before)
        await rules.load_facts(transaction.connection, router, named, transaction.now, registered)
        if opened.sent is None:
            self._meter(router, attempt, transaction.now, transaction.grace)

    def metered(self, transaction: Transaction, usage: Usage) -> Metered:
        """See `metered_of`."""
        return metered_of(transaction.router, self._targets, usage, transaction.now, transaction.grace)

    async def load(
        self, transaction: Transaction, attempt: Attempt, opened: Opened, registered: Registered
    ) -> tuple[Ledger, Cells]:
        """Locks the wallets, and reads what they protect."""
        raw, router, before, sent = transaction.driver, transaction.router, opened.before, opened.sent
        if sent is None:
            needs = self._needs(router, attempt, before, registered, transaction.now, transaction.grace)
            async with pipelines.pipeline(raw):
                sent = await self._send(raw, needs, before)
        cells, customer_ids = sent.needs.cells, sent.needs.customer_ids
        number, held = await wallets.locked(sent.locked)
        if number < len(customer_ids):  # one was deleted, with its customer
            self._wallets -= customer_ids
            raise Surprise
        if sent.changed is not None and sent.changed.differs:
            raise Surprise
        made = {} if sent.made is None else await reservations.records(sent.made)
        if sent.taken is not None:
            attempt.taken = await stored_ids.found(sent.taken)
        if (fresh := made.keys() - before.keys()) and any(
            (request.customer_id, request.reservation_id) in fresh
            for request in attempt.requests
            if isinstance(request, Settle | Release | Extend)
        ):
            raise Surprise  # it was made meanwhile, so what it holds was not read
        records = made | before
        await cells.load(raw)
        if cells.holds_more and records:
            records = await reservations.read(raw, self._organization_id, records)
        if len(self._wallets) > MOST_WALLETS:
            self._wallets.clear()
        self._wallets |= customer_ids
        credits = await self._open_credits(transaction, attempt, records, held)
        return Ledger(transaction.now, cells.by_key, records, credits), cells

    def _meter(self, router: Router, attempt: Attempt, now: datetime, grace: timedelta) -> None:
        """Finds what each request of usage is about."""
        targets = self._targets
        targets.use(router)
        for index, request in enumerate(attempt.requests):
            if not isinstance(request, Reserve):
                continue
            try:
                attempt.usages[index] = metered_of(router, targets, request.usage, now, grace)
            except EnforcementRefused as error:
                attempt.refused[index] = error

    def _needs(
        self,
        router: Router,
        attempt: Attempt,
        before: Mapping[Key, Record],
        registered: Registered,
        now: datetime,
        grace: timedelta,
    ) -> Needs:
        """What the requests need, whose usage is metered, and the reservations that they change."""
        cells = Cells(self._organization_id, router, now, registered.customers)
        keys = dict.fromkeys(
            [(one.customer_id, one.reservation_id) for one in attempt.requests if isinstance(one, Reserve)]
        )
        customer_ids = {metered.usage.customer_id for metered in attempt.usages.values()}
        with exact_arithmetic():
            for metered in attempt.usages.values():
                want_targets(cells, metered)
            for key, record in before.items():
                customer_ids.add(key[0])
                for one in record.held:
                    cells.want_held(one.customer_id, one.key)
                try:
                    metered = metered_of(router, self._targets, record.reservation.usage, now, grace)
                except EnforcementRefused:  # so is a settlement
                    # A release is not: what may let it hold more has the wallet of one of those above.
                    customer_ids.update([one.customer_id for one in router.chain(key[0])])
                    continue
                attempt.settled[key] = metered
                want_targets(cells, metered)
        ids = {
            (one.customer_id, one.reservation_id, attempt.usages[index].usage.event_time or now)
            for index, one in enumerate(attempt.requests)
            if isinstance(one, Reserve) and index in attempt.usages
        }
        return Needs(cells, customer_ids | cells.customer_ids, list(keys), ids)

    async def _send(self, raw: DriverConnection, needs: Needs, before: Mapping[Key, Record]) -> _Sent:
        """Sends the statements that lock the wallets and read what they protect, within a pipeline."""
        organization_id, customer_ids = self._organization_id, needs.customer_ids
        if unknown := customer_ids - self._wallets:
            await wallets.send_create(raw, organization_id, unknown)
        locked = await wallets.send_lock(raw, organization_id, customer_ids)
        changed = await reservation_locks.send_compare(raw, organization_id, before.values()) if before else None
        made = await reservations.send_read(raw, organization_id, needs.reserved) if needs.reserved else None
        taken = await stored_ids.send_read(raw, organization_id, needs.ids) if needs.ids else None
        await needs.cells.send_read(raw)
        return _Sent(needs, locked, changed, made, taken)

    async def _open_credits(
        self,
        transaction: Transaction,
        attempt: Attempt,
        records: dict[Key, Record],
        held: dict[str, Wallet],
    ) -> Credits:
        """The credits of all that may be held, settled or given back."""
        if not held:
            return NO_CREDITS
        usages = [metered.usage for metered in attempt.usages.values()]
        reserved = {
            (one.customer_id, one.reservation_id): attempt.usages[index].usage
            for index, one in enumerate(attempt.requests)
            if isinstance(one, Reserve) and index in attempt.usages
        }
        for request in attempt.requests:
            if isinstance(request, Settle):
                key = request.customer_id, request.reservation_id
                usage = records[key].reservation.usage if key in records else reserved.get(key)
                if usage is not None:
                    usages.append(_to_settle(request, usage))
        draws = [
            (record.reservation.customer_id, record.draws)
            for record in records.values()
            if record.draws is not None and record.reservation.state is ReservationState.OPEN
        ]
        return await open_credits(transaction, held, usages, draws)


def _to_settle(request: Settle, usage: Usage) -> Usage:
    """The usage that a settlement may draw: the greater of what was asked for and what was used."""
    quantity, cost = max(usage.quantity, request.quantity or ZERO), usage.cost
    if cost is not None and request.cost is not None:
        cost = max(cost, request.cost)
    return replace(usage, quantity=quantity, cost=cost)


def _named(attempt: Attempt, before: Mapping[Key, Record]) -> list[Usage]:
    """What the requests and the reservations name, one usage of each kind."""
    usages = [one.usage for one in attempt.requests if isinstance(one, Reserve)]
    usages += [record.reservation.usage for record in before.values()]
    return list({(usage.customer_id, usage.subscription_id, usage.metric_id): usage for usage in usages}.values())
