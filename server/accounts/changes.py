"""How what a customer holds and owes is changed: under the customer's wallet, in one transaction."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from runtime.clock import Clock
from store import facts, organizations, wallets
from store.database import Connection, Database, driver
from store.keys import Organization

Result = TypeVar("Result")


@dataclass(frozen=True)
class Touched:
    """What a change touched of what a customer holds and owes; nothing where it said nothing new."""

    invoices: frozenset[str] = frozenset()  # their ids


Change = Callable[[Connection], Awaitable[tuple[Result, Touched]]]


class Changes(Protocol):
    """Whoever carries out changes."""

    async def apply(self, organization: Organization, customer_id: str, change: Change[Result]) -> Result:
        """Runs `change` in a transaction that holds the customer's wallet, and returns its result once committed.

        A customer that is not known yet is created with defaults. What the change raises undoes all of it.
        """


class FactChanges:
    """Carries out changes; nothing follows from them yet."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def apply(self, organization: Organization, customer_id: str, change: Change[Result]) -> Result:
        """Runs `change` in a transaction of its own, see `Changes`."""
        organization_id = organization.organization_id
        async with self._database.transaction() as connection:
            # The order of all locks: the organization, what is created on first sight, wallets.
            epoch = await organizations.share(connection, organization_id)
            raw = await driver(connection)
            await facts.first_sight_customers(raw, organization_id, [customer_id], epoch, self._clock.now())
            await wallets.lock(connection, organization_id, [customer_id])
            result, _ = await change(connection)
        return result
