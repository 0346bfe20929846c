"""Loading: what the requests of a commit name is read, and the wallets that protect it are locked."""

from dataclasses import replace

from engine.enforcement.attempts import Attempt, Key, Surprise, usage_event
from engine.enforcement.credits import Credits
from engine.enforcement.ledger import Ledger
from engine.enforcement.metering import Metered, metered_of, want_targets
from engine.enforcement.requests import Check, EnforcementRefused, Extend, Release, Reserve, Settle
from engine.enforcement.running_credits import NO_CREDITS, open_credits
from engine.meters.cells import Cells
from engine.meters.known_targets import KnownTargets
from engine.rules.loading import Registered
from engine.rules.organization_rules import OrganizationRules
from engine.rules.transaction import Transaction
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.enforcement.reservations import ReservationState
from evaluator.enforcement.usage import Usage
from store.balances import wallets
from store.balances.wallets import Wallet
from store.enforcement import reservations
from store.enforcement.records import Record
from store.identity import organizations
from store.postgres.database import DriverConnection

MOST_WALLETS = 100_000  # of one organization, of which a process knows that they exist


class Loader:
    """Loads what the commits of one organization need, one commit at a time."""

    def __init__(self, organization_id: int) -> None:
        self._organization_id = organization_id
        self._targets = KnownTargets()
        self._wallets = set[str]()  # customers that have a wallet, as far as is known

    async def begin(
        self, raw: DriverConnection, attempt: Attempt
    ) -> tuple[organizations.LockedOrganization, dict[Key, Record]]:
        """Takes the organization's lock, shared, and reads the reservations that are to be changed.

        They are not locked yet; but what a reservation is for, and what it holds, never changes.
        """
        named = {
            (one.customer_id, one.reservation_id)
            for one in attempt.requests
            if isinstance(one, Settle | Release | Extend)
        }
        async with raw.pipeline():
            locked = await organizations.send_lock_shared(raw, self._organization_id)
            cursor = await reservations.send_read(raw, self._organization_id, named) if named else None
        records = {} if cursor is None else await reservations.records(cursor)
        return await organizations.locked(locked), records

    async def load_facts(
        self,
        transaction: Transaction,
        rules: OrganizationRules,
        attempt: Attempt,
        before: dict[Key, Record],
        registered: Registered,
    ) -> None:
        """Reads the facts of all usage; registers what is unknown. Finds what each request of usage is about."""
        usages = [one.usage for one in attempt.requests if isinstance(one, Reserve | Check)]
        usages += [record.reservation.usage for record in before.values()]
        kinds = {(usage.customer_id, usage.subscription_id, usage.metric_id): usage for usage in usages}
        named = [usage_event(usage) for usage in kinds.values()]
        router = transaction.router
        await rules.load_facts(transaction.connection, router, named, transaction.now, registered)
        self._targets.use(router)
        for index, request in enumerate(attempt.requests):
            if not isinstance(request, Reserve | Check):
                continue
            try:
                attempt.usages[index] = self.metered(transaction, request.usage)
            except EnforcementRefused as error:
                attempt.refused[index] = error

    def metered(self, transaction: Transaction, usage: Usage) -> Metered:
        """See `metered_of`."""
        return metered_of(transaction.router, self._targets, usage, transaction.now, transaction.grace)

    async def load(
        self, transaction: Transaction, attempt: Attempt, before: dict[Key, Record], registered: Registered
    ) -> tuple[Ledger, Cells]:
        """Locks the wallets, and reads what they protect."""
        raw, organization_id = transaction.driver, self._organization_id
        cells = Cells(organization_id, transaction.router, transaction.now, registered.customers)
        keys = dict.fromkeys(
            (one.customer_id, one.reservation_id) for one in attempt.requests if isinstance(one, Reserve)
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
                    metered = self.metered(transaction, record.reservation.usage)
                except EnforcementRefused:
                    continue  # so is the request
                attempt.settled[key] = metered
                want_targets(cells, metered)
        customer_ids |= cells.customer_ids
        unknown = customer_ids - self._wallets
        async with raw.pipeline():
            if unknown:
                await wallets.send_create(raw, organization_id, unknown)
            locked = await wallets.send_lock(raw, organization_id, customer_ids)
            changed = await reservations.send_compare(raw, organization_id, before.values()) if before else None
            read = await reservations.send_read(raw, organization_id, keys) if keys else None
            await cells.send_read(raw)
        number, held = await wallets.locked(locked)
        if number < len(customer_ids):  # one was deleted, with its customer
            self._wallets -= customer_ids
            raise Surprise
        if changed is not None and changed.rowcount:
            raise Surprise
        made = {} if read is None else await reservations.records(read)
        if (fresh := made.keys() - before.keys()) and any(
            (request.customer_id, request.reservation_id) in fresh
            for request in attempt.requests
            if isinstance(request, Settle | Release | Extend)
        ):
            raise Surprise  # it was made meanwhile, so what it holds was not read
        records = made | before
        await cells.load(raw)
        if len(self._wallets) > MOST_WALLETS:
            self._wallets.clear()
        self._wallets |= customer_ids
        credits = await self._open_credits(transaction, attempt, records, held)
        return Ledger(transaction.now, cells.by_key, records, credits), cells

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
