"""Credits: what the balances of customers can give to usage, as the ledger of a transaction asks for it."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from evaluator.enforcement.decisions import Credit
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent


class Credits(Protocol):
    """The balances of the customers of one transaction, as far as usage draws on them."""

    def available(self, usage: Usage) -> Sequence[Credit]:
        """What balances can give in each unit in which the usage needs credit."""

    def hold(self, usage: Usage, quantity: Decimal, cost: Decimal | None) -> str | None:
        """Holds what the usage takes; returns as JSON what was taken of which segments."""

    def give_back(self, usage: Usage, draws: str) -> None:
        """Gives back what `hold` has taken."""

    def settle(self, usage: Usage, draws: str | None, event: UsageEvent) -> None:
        """Draws the amounts of an event, first what was held for it, and gives the rest of that back."""


class NoCredits:
    """The credits of customers without balances."""

    def available(self, usage: Usage) -> Sequence[Credit]:
        """None are needed."""
        return ()

    def hold(self, usage: Usage, quantity: Decimal, cost: Decimal | None) -> str | None:
        """Holds nothing."""
        return None

    def give_back(self, usage: Usage, draws: str) -> None:
        """Gives nothing back."""

    def settle(self, usage: Usage, draws: str | None, event: UsageEvent) -> None:
        """Draws nothing."""
