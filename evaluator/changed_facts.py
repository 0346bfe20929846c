"""Changed facts: the balances and invoices that a change of a customer's facts can have moved."""

from dataclasses import dataclass

from evaluator.balances import Holding
from evaluator.invoices import MeasuredInvoice


@dataclass(frozen=True)
class ChangedFacts:
    """The balances and invoices that changed; empty where the facts were known already.

    Each is there as it is now and, unless it is new, as it was before. recharge_policies: the balances whose recharge
    policy changed.
    """

    balances: tuple[Holding, ...] = ()
    invoices: tuple[MeasuredInvoice, ...] = ()
    recharge_policies: tuple[str, ...] = ()

    @property
    def balance_ids(self) -> set[str]:
        """The balances whose recharge policies have to be evaluated."""
        return {one.balance_id for one in self.balances} | set(self.recharge_policies)
