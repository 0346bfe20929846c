"""Reservations on balances as a commit of enforcement makes them, without limits and without their rows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal

from engine.balances.drawdown import draw_down
from engine.balances.holding import credits_of, open_running
from engine.balances.open_balances import Wanted
from engine.evaluation.results import RecordedTransition
from engine.ingest.counting import count
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction, Transactions
from evaluator.amounts import exact_arithmetic
from evaluator.balance_holds import UnitHold, holds_from, holds_json
from evaluator.enforcement.decisions import Credit
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from store.balances import wallets
from store.balances.balances import read_one_snapshot
from store.balances.wallets import Wallet
from store.identity.organizations import Organization
from store.postgres.database import Database, driver
from store.usage import events as stored_events
from tests.support.usage.caller import Caller
from tests.support.usage.service import GRACE


class Reserver:
    """Holds on the balances of one customer, by the id of their reservation."""

    def __init__(self, database: Database, caller: Caller, customer: str = "acme") -> None:
        self.holds: dict[str, list[UnitHold]] = {}
        self._database = database
        self._caller = caller
        self._customer = customer
        self._transactions = Transactions(database, caller.clock, GRACE, RulesRegistry())

    def usage(
        self,
        cost: str | None,
        quantity: str = "1",
        *,
        at: datetime | None = None,
        metric: str = "calls",
        **properties: str,
    ) -> Usage:
        """Usage in dollars; at: its time, by default now."""
        amount = None if cost is None else Decimal(cost)
        time = at or self._caller.clock.now()
        return Usage(self._customer, metric, Decimal(quantity), amount, "USD", None, properties, time)

    async def hold(self, *wanted: tuple[str, Usage], only_available: bool = False) -> list[str]:
        """Holds for several reservations in one commit, in order; returns the ids of those that hold something.

        only_available: a usage that has not enough credit holds nothing.
        """
        usages = [usage for _, usage in wanted]
        made: dict[str, list[UnitHold]] = {}
        async with self._open(usages) as (transaction, held):
            running = await open_running(transaction, held, Wanted(usages, asking=usages))
            with exact_arithmetic():
                for name, usage in wanted:
                    credit = running.available(usage)
                    if not only_available or all(
                        one.available is None or one.amount <= one.available for one in credit
                    ):
                        made[name] = running.hold(usage)
            await running.write()
        self.holds |= made
        return list(made)

    async def available(self, usage: Usage) -> list[Credit]:
        """The credit of a usage, as a transaction that holds the wallet sees it; equal to what a check sees."""
        async with self._open([usage]) as (transaction, held):
            running = await open_running(transaction, held, Wanted([usage], asking=[usage], whole=True))
            with exact_arithmetic():
                found = running.available(usage)
        async with self._database.transaction() as connection:
            await read_one_snapshot(connection)
            raw = await driver(connection)
            organization_id = transaction.organization_id
            cursor = await wallets.send_read_with_drawdown(raw, organization_id, [usage.customer_id])
            drawn = await wallets.held(cursor)
            assert await credits_of(raw, organization_id, drawn, [usage]) == [found]
        return found

    async def release(self, *names: str) -> None:
        """Gives back what reservations hold."""
        holds = [one for name in names for one in self._stored(name)]
        async with self._open([self.usage("0")]) as (transaction, held):
            running = await open_running(transaction, held, Wanted([], holds={self._customer: holds}))
            with exact_arithmetic():
                running.give_back(self._customer, holds)
            await running.write()

    async def exchange(self, name: str, new: tuple[str, Usage]) -> None:
        """Releases one reservation and makes another one in the same commit."""
        holds = self._stored(name)
        async with self._open([new[1]]) as (transaction, held):
            running = await open_running(transaction, held, Wanted([new[1]], holds={self._customer: holds}))
            with exact_arithmetic():
                running.give_back(self._customer, holds)
                self.holds[new[0]] = running.hold(new[1])
            await running.write()

    async def settle(self, name: str, usage: Usage) -> list[RecordedTransition]:
        """Settles a reservation with an event whose id is that of the reservation; returns what that reached."""
        event = _event(name, usage)
        async with self._open([usage]) as (transaction, held):
            await stored_events.insert(transaction.driver, transaction.organization_id, transaction.now, [event])
            settling = {(event.customer_id, event.event_id, event.event_time, event.metric_id): self._stored(name)}
            drawdown = await draw_down(transaction, [event], held, settling)
            counted = await count(transaction, [event], set(), False, drawdown=drawdown)
            return counted.transitions

    def _stored(self, name: str) -> list[UnitHold]:
        """The holds as they are read again from where they are stored. They end."""
        return holds_from(holds_json(self.holds.pop(name)))

    @asynccontextmanager
    async def _open(self, usages: list[Usage]) -> AsyncIterator[tuple[Transaction, dict[str, Wallet]]]:
        [[organization_id]] = await self._caller.rows("SELECT %(organization_id)s")
        async with self._transactions.open(Organization(organization_id, self._caller.organization)) as transaction:
            await transaction.load_facts([_event("", usage) for usage in usages])
            held = await wallets.lock(transaction.connection, organization_id, {one.customer_id for one in usages})
            yield transaction, held


def _event(event_id: str, usage: Usage) -> UsageEvent:
    assert usage.event_time is not None
    return UsageEvent(
        event_id,
        usage.customer_id,
        usage.event_time,
        usage.metric_id,
        usage.quantity,
        usage.subscription_id,
        usage.cost,
        None if usage.cost is None else usage.currency,
        usage.properties,
    )
