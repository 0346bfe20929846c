"""Recharging: the recharge policies of balances from which usage drew are evaluated in its transaction."""

from collections.abc import Iterable, Mapping, Sequence

from engine.recharges.evaluating import evaluate_recharges
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from store.balances.drawdown import Drawable
from store.balances.wallets import Wallet


async def recharge_drawn(
    transaction: Transaction, held: Mapping[str, Wallet], drawn: Iterable[Drawable], events: Sequence[UsageEvent]
) -> None:
    """Evaluates the policies of balances from which usage drew, or to which it gave back.

    held: the wallets of the customers, which the transaction holds, by customer id; the router knows the customers.
    drawn: what the transaction has stored.
    """
    touched: dict[str, set[str]] = {}
    for item in drawn:
        if held[item.customer_id].has_recharge_policy:
            touched.setdefault(item.customer_id, set()).add(item.holding.balance_id)
    if touched:
        customers = {transaction.router.customer(customer_id): held[customer_id] for customer_id in touched}
        await evaluate_recharges(transaction, customers, touched, events=events)
