"""Facts: what a billing system posts about a customer, and which part of it a change has touched."""

from dataclasses import dataclass

from evaluator.invoices import Invoice


@dataclass(frozen=True)
class Touched:
    """What a change of one customer's facts may have moved.

    invoices: those that changed, each as it was before (unless it is new) and as it is now.
    """

    invoices: tuple[Invoice, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.invoices)
