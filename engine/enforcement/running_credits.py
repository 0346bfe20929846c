"""Running credits: what the balances of one commit's customers can give, and what its reservations hold of them."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import orjson

from engine.balances.holding import open_running
from engine.balances.open_balances import Wanted
from engine.balances.running_drawdown import Drawdown, RunningDrawdown
from engine.enforcement.credits import Credits, NoCredits
from engine.rules.transaction import Transaction
from evaluator.balance_holds import UnitHold, holds_from, holds_json
from evaluator.enforcement.decisions import Credit
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from store.balances.wallets import Wallet

NO_CREDITS = NoCredits()


class RunningCredits:
    """The credits of customers that have balances on which usage draws; see `credits.Credits`."""

    def __init__(self, running: RunningDrawdown, drawing: Container[str]) -> None:
        """`drawing`: the customers on whose balances usage draws."""
        self._running = running
        self._drawing = drawing

    def available(self, usage: Usage) -> Sequence[Credit]:
        """In each unit in which a balance is for the usage."""
        return self._running.available(usage) if usage.customer_id in self._drawing else ()

    def hold(self, usage: Usage, quantity: Decimal, cost: Decimal | None) -> str | None:
        """In the draw order."""
        if usage.customer_id not in self._drawing:
            return None
        if quantity != usage.quantity or cost != usage.cost:
            usage = replace(usage, quantity=quantity, cost=cost)
        holds = self._running.hold(usage)
        return orjson.dumps(holds_json(holds)).decode() if holds else None

    def give_back(self, usage: Usage, draws: str) -> None:
        """To the very segments, in the opposite order."""
        self._running.give_back(usage.customer_id, holds_of(draws))

    def settle(self, usage: Usage, draws: str | None, event: UsageEvent) -> None:
        """From the very segments first."""
        if event.customer_id not in self._drawing:
            return
        if draws is None:
            self._running.take(event)
        else:
            self._running.settle(event, holds_of(draws))

    async def write(self) -> Drawdown:
        """Stores all changes."""
        return await self._running.write()


async def open_credits(
    transaction: Transaction,
    held: Mapping[str, Wallet],
    usages: Iterable[Usage],
    draws: Iterable[tuple[str, str]],
) -> Credits | RunningCredits:
    """The credits of a transaction that holds these wallets, on whose balances usage draws.

    usages: all that may be held or settled. draws: what open reservations hold that may end, with their customers.
    """
    if not held:
        return NO_CREDITS
    wanted = [usage for usage in usages if usage.customer_id in held]
    holds: dict[str, list[UnitHold]] = {}
    for customer_id, text in draws:
        if customer_id in held:
            holds.setdefault(customer_id, []).extend(holds_of(text))
    if not wanted and not holds:
        return NO_CREDITS
    # The wallets of customers above are held, too. The router need not know those above which usage no longer is.
    drawing = {usage.customer_id for usage in wanted} | holds.keys()
    own = {customer_id: wallet for customer_id, wallet in held.items() if customer_id in drawing}
    running = await open_running(transaction, own, Wanted(wanted, asking=wanted, holds=holds))
    return RunningCredits(running, own)


def holds_of(draws: str) -> list[UnitHold]:
    """What a reservation holds of balances, as it is stored."""
    return holds_from(orjson.loads(draws))
