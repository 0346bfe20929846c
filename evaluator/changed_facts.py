"""Changed facts: the balances and invoices that a change of a customer's facts can have moved."""

from dataclasses import dataclass

from evaluator.balances import Holding
from evaluator.invoices import MeasuredInvoice


@dataclass(frozen=True)
class ChangedFacts:
    """The balances and invoices that changed; empty where the facts were known already.

    Each is there as it is now and, unless it is new, as it was before.
    """

    balances: tuple[Holding, ...] = ()
    invoices: tuple[MeasuredInvoice, ...] = ()
