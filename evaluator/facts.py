"""Facts: what a billing system posts about a customer, and which part of it a change has touched."""

from dataclasses import dataclass

from evaluator.balances import Holding
from evaluator.invoices import Invoice


@dataclass(frozen=True)
class Touched:
    """What a change of one customer's facts may have moved; nothing where it said nothing new.

    balances, invoices: those that changed, each as it was before (unless it is new) and as it is now.
    """

    balances: tuple[Holding, ...] = ()
    invoices: tuple[Invoice, ...] = ()
