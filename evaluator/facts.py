"""Facts: what a billing system posts about a customer, and which part of it a change has touched."""

from dataclasses import dataclass

from evaluator.balances import BalanceKind, Seat
from evaluator.invoices import Invoice


@dataclass(frozen=True)
class Touched:
    """What a change of one customer's facts may have moved; nothing where it said nothing new.

    balances: the kinds of those that changed. seats: of the seat credits among them. invoices: those that changed,
    each as it was before (unless it is new) and as it is now.
    """

    balances: frozenset[BalanceKind] = frozenset()
    seats: frozenset[Seat] = frozenset()
    invoices: tuple[Invoice, ...] = ()
