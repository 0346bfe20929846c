"""Running drawdown: usage of one transaction takes from its customers' balances, holds of them, and gives back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from engine.balances.balance_watches import BalanceWatches
from engine.balances.open_balances import Drawing, OpenBalances, Share, Wanted
from engine.balances.recharging import recharge_drawn
from engine.evaluation.subjects import Movement
from engine.rules.transaction import Transaction
from evaluator import balance_holds
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_holds import UnitHold
from evaluator.balance_values import moved_by
from evaluator.drawdown import Draw, Source
from evaluator.enforcement.decisions import Credit
from evaluator.events import UsageEvent
from evaluator.watched_gauges import WatchedGauge
from store.balances import drawdown as stored_drawdown
from store.balances.wallets import Wallet


@dataclass(frozen=True)
class Drawdown:
    """How the gauges of balances move, and as of when each customer's balances are read, by customer id."""

    movements: dict[WatchedGauge, Movement]
    read_times: dict[str, datetime]


NOTHING_DRAWN = Drawdown({}, {})


class RunningDrawdown:
    """The drawdown of the customers of one commit, in the order of the calls.

    Only what is drawn moves gauges and makes entries in the ledger. What is held does neither. Methods that are not
    coroutines must run under `exact_arithmetic`.
    """

    def __init__(self, transaction: Transaction, held: Mapping[str, Wallet]) -> None:
        """`held`: the wallets of all customers, which the transaction holds, by customer id."""
        self.movements: dict[WatchedGauge, Movement] = {}
        self._transaction = transaction
        self._held = held
        self._open = OpenBalances(held)
        self._drawn: dict[Source, Decimal] = {}
        self._watches = BalanceWatches(transaction.router)
        # Of these customers the events are kept, for the traces of what recharges are requested.
        self._recharging = {wallet.customer_id for wallet in held.values() if wallet.has_recharge_policy}
        self._events: list[UsageEvent] = []

    async def load(self, wanted: Wanted) -> None:
        """Reads the segments that are wanted. Once, before all other calls."""
        with exact_arithmetic():
            await self._open.load(self._transaction.driver, self._transaction.organization_id, wanted)

    def take(self, event: UsageEvent) -> None:
        """Draws the cost and the quantity of one event, or gives them back."""
        moved: dict[WatchedGauge, Decimal] = {}
        for balances, amount, time, metric_id, of_seat in self._open.shares(event):
            self._note(event.customer_id, balances.draw(amount, time, metric_id, of_seat), moved)
        if moved:
            self._move(event, moved)

    def available(self, usage: Drawing) -> list[Credit]:
        """The credit that a usage has in each unit that a balance is for; it must be among those that ask.

        A balance is for a usage whose metric, and whose seat if it has one, may draw on it. Where all its segments
        have ended, nothing is available. Voided balances are for no usage.
        """
        return [
            Credit(share.balances.unit, share.amount, available_in(share))
            for share in self._open.shares(usage)
            if self._open.is_covered(usage, share.balances.unit)
        ]

    def hold(self, usage: Drawing) -> list[UnitHold]:
        """Holds the amounts of a usage, which are at least 0, in the draw order.

        What no segment gives is in `UnitHold.overage`. There is none of units in which the customer never had a
        balance.
        """
        return [
            balance_holds.hold(share.balances, share.amount, share.time, share.metric_id, share.of_seat)
            for share in self._open.shares(usage)
        ]

    def give_back(self, customer_id: str, holds: Iterable[UnitHold]) -> None:
        """Ends a hold without usage: gives all of it back to the very segments, also where they have ended."""
        sources = self._open.sources(customer_id)
        for one in holds:
            balance_holds.give_back(self._open.unit(customer_id, one.unit), one, one.amount, sources)

    def settle(self, event: UsageEvent, holds: Iterable[UnitHold]) -> None:
        """Ends a hold of the event's customer with the event, see `evaluator.balance_holds.settle`.

        What the event uses in a unit that is not held is drawn like that of any event.
        """
        sources, moved = self._open.sources(event.customer_id), dict[WatchedGauge, Decimal]()
        held = {one.unit: one for one in holds}
        for share in self._open.shares(event):
            own = held.pop(share.balances.unit, None)
            draws = (
                _draw(share)
                if own is None
                else balance_holds.settle(
                    share.balances, own, share.amount, share.time, share.metric_id, share.of_seat, sources
                )
            )
            self._note(event.customer_id, draws, moved)
        self.give_back(event.customer_id, held.values())
        self._move(event, moved)

    async def write(self) -> Drawdown:
        """Stores all changes, and requests the recharges that follow from them.

        The gauges of the balances are still to be moved and evaluated.
        """
        transaction = self._transaction
        with exact_arithmetic():
            changed = dict.fromkeys(self._open.changed_holds(), ZERO)
            changed |= {source: amount for source, amount in self._drawn.items() if amount}
            drawn = [(self._open.drawable(source), amount) for source, amount in changed.items()]
            overages = self._open.changed_overages()
            await stored_drawdown.write(
                transaction.driver, transaction.organization_id, drawn, overages, transaction.now
            )
        if self._recharging:
            await recharge_drawn(transaction, self._held, (item for item, amount in drawn if amount), self._events)
        read_times = {wallet.customer_id: wallet.moment(transaction.now) for wallet in self._held.values()}
        return Drawdown(self.movements, read_times)

    def _note(self, customer_id: str, draws: Sequence[Draw], moved: dict[WatchedGauge, Decimal]) -> None:
        """Adds what segments gave, and by how much that moves gauges."""
        moment = self._held[customer_id].moment(self._transaction.now)
        for one in draws:
            self._drawn[one.source] = self._drawn.get(one.source, ZERO) + one.amount
            item = self._open.drawable(one.source)
            # A segment that is not active now is on no gauge; it is read when it begins.
            if item.counts and one.source.segment.covers(moment):
                for watch in self._watches.of(item):
                    selection = watch.gauge.measure.balances
                    assert selection is not None
                    moved[watch] = moved.get(watch, ZERO) + moved_by(selection, one.amount)

    def _move(self, event: UsageEvent, moved: Mapping[WatchedGauge, Decimal]) -> None:
        if event.customer_id in self._recharging:
            self._events.append(event)
        for watch, amount in moved.items():
            self.movements.setdefault(watch, Movement(watch)).add(amount, event)


def available_in(share: Share) -> Decimal | None:
    """What a usage can take in one unit; None: any amount."""
    return balance_holds.available(share.balances, share.time, share.metric_id, share.of_seat)


def _draw(share: Share) -> list[Draw]:
    return share.balances.draw(share.amount, share.time, share.metric_id, share.of_seat)
