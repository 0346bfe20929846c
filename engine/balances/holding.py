"""Holding: reservations hold credit of the balances on which their usage will draw.

For many customers of one commit in few statements: open, decide and hold in order, then `RunningDrawdown.write`.
"""

from collections.abc import Mapping, Sequence

from engine.balances.open_balances import Drawing, OpenBalances, Wanted
from engine.balances.running_drawdown import RunningDrawdown, available_in
from engine.facts.due_timers import catch_up
from engine.rules.transaction import Transaction
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.decisions import Credit
from store.balances.wallets import Wallet
from store.postgres.database import DriverConnection


async def open_running(transaction: Transaction, held: Mapping[str, Wallet], wanted: Wanted) -> RunningDrawdown:
    """The balances of customers, to hold of them and to draw on them.

    held: the wallets of all customers of `wanted`, which the transaction holds; the router knows the customers. Their
    due timers are processed first, because settled usage moves gauges.
    """
    drawing = {
        transaction.router.customer(wallet.customer_id): wallet for wallet in held.values() if wallet.draw_units
    }
    await catch_up(transaction, drawing)
    running = RunningDrawdown(transaction, held)
    await running.load(wanted)
    return running


async def credits_of(
    connection: DriverConnection, organization_id: int, found: Mapping[str, Wallet], usages: Sequence[Drawing]
) -> list[list[Credit]]:
    """The credit that each usage has now, as `RunningDrawdown.available`, without any lock.

    found: the wallets of their customers on which usage draws, see `wallets.send_read_with_drawdown`. The transaction
    must read one snapshot. All that is available is read, not only as much as is asked for.
    """
    drawing = [usage for usage in usages if usage.customer_id in found]
    if not drawing:
        return [[] for _ in usages]
    balances = OpenBalances(found)
    with exact_arithmetic():
        await balances.load(connection, organization_id, Wanted(drawing, asking=drawing, whole=True))
        return [
            [
                Credit(share.balances.unit, share.amount, available_in(share))
                for share in (balances.shares(usage) if usage.customer_id in found else ())
                if balances.is_covered(usage, share.balances.unit)
            ]
            for usage in usages
        ]
