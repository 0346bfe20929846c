"""Puts of customers, subscriptions and limits: many callers' facts are stored together.

A put takes up to three steps, each together with other puts of its organization. The first is a transaction without
the organization's lock. It is enough for a fact that is stored already, or that changes nothing that routers read.
The second is a group of changes under the lock, which holds only the writes. The third, after the commit, evaluates
the customer.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import Kind, OpenChange
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.puts.together import Together
from runtime.clock import Clock
from store.accounts.puts import Put, UnlockedPut
from store.identity.organizations import Organization
from store.postgres.database import Connection, DriverConnection, driver

PUTS_AT_ONCE = 100  # of one statement

Fact = TypeVar("Fact")
Stored = TypeVar("Stored")
FactOf = TypeVar("FactOf", contravariant=True)


class PutUnlocked(Protocol[FactOf, Stored]):
    """Puts distinct facts without the lock, as far as that is possible, see `StatedTable.put_unlocked`."""

    async def __call__(
        self, connection: DriverConnection, organization_id: int, facts: Sequence[FactOf], now: datetime, /
    ) -> Mapping[int, UnlockedPut[Stored]]: ...


@dataclass(frozen=True)
class PutKind(Generic[Fact, Stored]):
    """One kind of puts.

    key: of the fact in its organization. customer_id: of the customer to evaluate; None where there is none.
    without_lock, under_lock: how facts are put without the organization's lock, and under it.
    """

    key: Callable[[Fact], Hashable]
    customer_id: Callable[[Fact], str | None]
    without_lock: PutUnlocked[Fact, Stored]
    under_lock: Kind[Fact, Put[Stored]]


class Puts(Generic[Fact, Stored]):
    """Puts facts of one kind."""

    def __init__(
        self,
        clock: Clock,
        groups: ChangeGroups,
        evaluations: CustomerEvaluations,
        kind: PutKind[Fact, Stored],
    ) -> None:
        self._clock = clock
        self._groups = groups
        self._evaluations = evaluations
        self._kind = kind
        self._unlocked = Together[Fact, UnlockedPut[Stored] | None](self._put_unlocked, kind.key, PUTS_AT_ONCE)

    async def put(self, organization: Organization, fact: Fact, *, validate_only: bool) -> Put[Stored]:
        """Stores a fact, unless a newer one is stored, and evaluates its customer on the change.

        Raises DatabaseUnavailable, and what refuses the put. With validate_only nothing is kept.
        """
        if validate_only:
            unlocked = await self._would_put_unlocked(organization, fact)
        else:
            unlocked = await self._unlocked.ask(organization, fact)
        if unlocked is not None:
            put, noted = Put(unlocked.stored, superseded=unlocked.superseded), unlocked.noted
        else:
            put = await self._groups.run_together(
                organization.organization_id, self._kind.under_lock, fact, keep=not validate_only
            )
            noted = put.changed and put.noted
        customer_id = self._kind.customer_id(fact)
        if noted and customer_id is not None and not validate_only:
            await self._evaluations.evaluate(organization, customer_id)
        return put

    async def drain(self) -> None:
        """Waits until nothing is in progress that its groups do not know."""
        await self._unlocked.drain()

    async def _put_unlocked(
        self, organization: Organization, facts: Sequence[Fact]
    ) -> Sequence[UnlockedPut[Stored] | None]:
        async with self._groups.transaction(organization.organization_id) as connection:
            raw = await driver(connection)
            found = await self._kind.without_lock(raw, organization.organization_id, facts, self._clock.now())
        return [found.get(position) for position in range(len(facts))]

    async def _would_put_unlocked(self, organization: Organization, fact: Fact) -> UnlockedPut[Stored] | None:
        """What `_put_unlocked` would do with a fact."""
        async with self._groups.transaction(organization.organization_id) as connection:
            raw = await driver(connection)
            async with raw.transaction(force_rollback=True):
                found = await self._kind.without_lock(raw, organization.organization_id, [fact], self._clock.now())
        return found.get(0)


Apply = Callable[[OpenChange, Sequence[Fact]], Awaitable[Sequence[Stored | Exception]]]


class Distinct(Generic[Fact, Stored]):
    """A kind of changes of which one statement takes only items with distinct keys, and nothing is prepared."""

    goes_last = False

    def __init__(self, key: Callable[[Fact], Hashable], apply: Apply[Fact, Stored]) -> None:
        self._key = key
        self._apply = apply

    def needs_preparing(self, item: Fact) -> bool:
        """Whether anything is prepared for an item."""
        return False

    async def prepare(self, connection: Connection, organization_id: int, items: Sequence[Fact]) -> Sequence[None]:
        """Leaves all items to `apply`."""
        return [None] * len(items)

    async def apply(self, change: OpenChange, items: Sequence[Fact]) -> Sequence[Stored | Exception]:
        """Applies the items in their order; those with the same key one after the other."""
        results: dict[int, Stored | Exception] = {}
        left = list(enumerate(items))
        while left:
            now: dict[Hashable, tuple[int, Fact]] = {}
            later = [one for one in left if now.setdefault(self._key(one[1]), one) is not one]
            applied = await self._apply(change, [item for _, item in now.values()])
            for (position, _), result in zip(now.values(), applied, strict=True):
                results[position] = result
            left = later
        return [results[position] for position in range(len(items))]
