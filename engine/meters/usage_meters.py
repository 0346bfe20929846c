"""The meters of usage that needs no decision: what commits of events, and voids, move.

Most customers have no enforced limit, and cost nothing here. For the others the transaction locks the wallets of the
limits' holders before it stores or locks events: all that changes a meter holds its wallet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import orjson

from engine.balances.drawdown import Settling
from engine.evaluation.held_routing import HeldMove
from engine.meters.cells import Cells
from engine.meters.held_moves import held_move, know_usage
from engine.meters.known_targets import KnownTargets
from engine.rules.transaction import Transaction
from evaluator.aggregation import contribution
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_holds import holds_from
from evaluator.enforced_limits import Enforcement
from evaluator.enforcement.decisions import LimitState
from evaluator.enforcement.reservations import ReservationState
from evaluator.enforcement.states import limit_state
from evaluator.enforcement.targets import Charge, Target
from evaluator.events import SettlingEvent, UsageEvent
from evaluator.routing import Router
from store.balances import wallets
from store.balances.wallets import Wallet
from store.enforcement import meters, reservation_locks, reservations, rolling_minutes
from store.enforcement.records import Record
from store.postgres.distributed import NeedsCoordinator

EVENTS_AT_ONCE = 100  # events that are counted without a pause

_Identity = tuple[str, str]  # customer and event, or customer and reservation


@dataclass(eq=False)
class UsageMeters:
    """The meters of the usage of one transaction, and the reservations that it settles.

    transaction: it names no shards if one of the meters lies at another node. covered: customers of the usage to
    which an enforced limit may apply. held: the wallets that are locked: those of the meters' customers, and those on
    whose balances the usage draws. holds: what the settled reservations hold no
    more, for gauges that count it.
    """

    transaction: Transaction
    covered: set[str]
    held: dict[str, Wallet]
    _cells: Cells
    _targets: KnownTargets
    _records: dict[_Identity, Record] = field(default_factory=dict)
    holds: list[HeldMove] = field(default_factory=list)

    def drawing(self, events: Iterable[UsageEvent]) -> dict[str, Wallet]:
        """The wallets on whose balances the events draw."""
        return {
            customer_id: self.held[customer_id]
            for customer_id in {event.customer_id for event in events}
            if customer_id in self.held and self.held[customer_id].draw_units
        }

    async def count(self, events: Sequence[UsageEvent]) -> Settling:
        """Counts events that the transaction has stored, and settles reservations with them.

        Returns what the settled reservations hold of balances.
        """
        router, cells = self.transaction.router, self._cells.by_key
        slices = self.transaction.slices()
        slices.begin_at_once()
        own = [event for event in events if event.customer_id in self.covered]
        with exact_arithmetic():
            settling = self._settle(events) if self._records else {}
            for number, event in enumerate(router.metric_events(own)):
                if not number % EVENTS_AT_ONCE:
                    await slices.pause()
                for target, amount in _amounts(router, self._targets, event):
                    cells[target.meter_at(event.event_time).key].count(amount, event.event_time)
        return settling

    async def uncount(self, events: Sequence[UsageEvent]) -> None:
        """Takes back events of metrics that the transaction deletes."""
        router, cells = self.transaction.router, self._cells.by_key
        with exact_arithmetic():
            for event in events:
                if event.customer_id in self.covered:
                    for target, amount in _amounts(router, self._targets, event):
                        cells[target.meter_at(event.event_time).key].count(-amount, event.event_time)

    def over(self, events: Sequence[UsageEvent]) -> list[tuple[LimitState, set[_Identity]]]:
        """The hard limits that are passed now, of those that the events count in, each with these events."""
        router, cells, now = self.transaction.router, self._cells.by_key, self.transaction.now
        found: dict[tuple[str, str], tuple[LimitState, set[_Identity]]] = {}
        with exact_arithmetic():
            for event in router.metric_events([one for one in events if one.customer_id in self.covered]):
                for target, amount in _amounts(router, self._targets, event):
                    cell, limit = cells[target.meter_at(event.event_time).key], target.limit
                    if limit.enforcement is not Enforcement.HARD or cell.counted + cell.held <= limit.amount:
                        continue
                    key = limit.limit_id, cell.key
                    if key not in found:
                        found[key] = limit_state(Charge(target, cell, amount), now), set()
                    found[key][1].add(event.identity)
        return list(found.values())

    async def write(self) -> None:
        """Stores what has changed."""
        transaction, changed = self.transaction, self._cells.changed()
        records = [record for record in self._records.values() if record.changed]
        raw, organization_id = transaction.driver, transaction.organization_id
        async with raw.pipeline():
            if changed:
                await meters.send_write(raw, organization_id, changed, transaction.now, transaction.shards)
                await rolling_minutes.send_add(raw, organization_id, changed, transaction.shards)
            if records:
                await reservations.send_write(raw, organization_id, records, transaction.shards)

    def _settle(self, events: Sequence[UsageEvent]) -> Settling:
        """Ends the open reservations that events settle."""
        found = {}
        for event in events:
            if (reservation_id := event.reservation_id) is None:
                continue
            record = self._records.get((event.customer_id, reservation_id))
            if record is None or not _settles(event, record, self.transaction):
                continue
            for held in record.held:
                self._cells.by_key[held.key].hold(-held.amount)
            if record.draws is not None:
                key = event.customer_id, event.event_id, event.event_time, event.metric_id
                found[key] = holds_from(orjson.loads(record.draws))
            settled_by = event.event_id, event.event_time
            move = held_move(self.transaction.router, record.reservation, ends=True, settled_by=settled_by)
            if move is not None:
                self.holds.append(move)
            record.change(
                state=ReservationState.SETTLED,
                end_time=self.transaction.now,
                settled_quantity=event.quantity,
                settled_cost=event.cost,
            )
        return found


async def open_usage_meters(
    transaction: Transaction, targets: KnownTargets, events: Sequence[UsageEvent], new_customers: set[str]
) -> UsageMeters | None:
    """Locks and reads what events that are about to be stored, or taken back, move; None if that is nothing.

    `write` must follow, also where nothing has moved: meters may have been counted anew, and windows have gone on.
    events: of customers that the router knows. new_customers: those that the transaction has registered.
    """
    router = transaction.router
    settling = [event for event in events if event.reservation_id] if SettlingEvent in set(map(type, events)) else []
    if not (router.enforces or settling):
        return None
    customer_ids = {event.customer_id for event in events}
    covered = {one for one in customer_ids if router.is_covered(one)} if router.enforces else set[str]()
    if not covered and not settling:
        return None
    targets.use(router)
    cells = Cells(transaction.organization_id, router, transaction.now, new_customers)
    own = [router.with_currency(event) for event in events if event.customer_id in covered]
    with exact_arithmetic():
        for event in router.metric_events(own):
            for target, _ in _amounts(router, targets, event):
                cells.want(target, event.event_time)
    raw, organization_id = transaction.driver, transaction.organization_id
    named = {(event.customer_id, event.reservation_id or "") for event in settling}
    before = await reservations.read(raw, organization_id, named, transaction.shards) if named else {}
    wanted = cells.customer_ids | {customer_id for customer_id, _ in before}
    wanted.update(held.customer_id for record in before.values() for held in record.held)
    # All that may let a reservation hold more until it is locked hold the wallet of one of these.
    wanted.update(one for customer_id, _ in before for one in router.enforcing(customer_id))
    if transaction.shards is not None and not wanted <= transaction.shards.keys():
        transaction = replace(transaction, shards=None)  # Citus must know of all that changes, see `Transaction`
    cells.shards = transaction.shards
    locked = await wallets.lock_with_others(raw, organization_id, wanted, customer_ids, transaction.shards)
    records = await reservation_locks.read_held(raw, organization_id, before, transaction.shards) if before else {}
    for record in records.values():
        for held in record.held:
            cells.want_held(held.customer_id, held.key)
    if cells.shards is not None and not cells.customer_ids <= cells.shards.keys():
        raise NeedsCoordinator  # a reservation holds more than when it was read
    await know_usage(transaction, [record.reservation for record in records.values()])
    await cells.send_read(raw)
    await cells.load(raw)
    if cells.holds_more and records:
        records = await reservations.read(raw, organization_id, records, transaction.shards)
    return UsageMeters(transaction, covered, locked, cells, targets, records)


def _amounts(router: Router, targets: KnownTargets, event: UsageEvent) -> list[tuple[Target, Decimal]]:
    """What an event of a metric, with its currency, takes of each target."""
    currency = None if event.cost is None else event.currency
    found = targets.of(router, event.customer_id, event.subscription_id, event.metric_id, currency)
    if not found.units:
        return []
    of_metric = contribution(found.aggregation, event.quantity)
    of_cost = event.cost or ZERO
    return [(target, of_cost if target.of_cost else of_metric) for target in found.of(event.properties)]


def _settles(event: UsageEvent, record: Record, transaction: Transaction) -> bool:
    """Whether an event settles a reservation; otherwise it is plain usage."""
    one = record.reservation
    return (
        one.state is ReservationState.OPEN
        and not record.is_due(transaction.now)
        and event.metric_id == one.usage.metric_id
    )
