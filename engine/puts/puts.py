"""Puts of customers, subscriptions and limits: many callers' facts are stored together.

A put takes up to three steps, each together with other puts of its organization. The first is a transaction without
the organization's lock. It is enough for a fact that is stored already, or that changes nothing that routers read.
The second is a group of changes under the lock, which holds only the writes. The third, after the commit, evaluates
the customer, unless the second has found that no alert has anything to report (`engine.puts.effects`).
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import Kind, OpenChange
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.puts.effects import Effect, quiet_put
from engine.puts.together import Together
from engine.rules.registry import RulesRegistry
from runtime.clock import Clock
from store.accounts.puts import Put, UnlockedPut, differs
from store.accounts.quiet_puts import QuietPut
from store.audit import writing
from store.audit.entries import Describe
from store.identity.organizations import Organization
from store.postgres import pipelines
from store.postgres.database import Connection, DriverConnection
from store.rules import facts_before_puts
from store.rules.facts_before_puts import FactsBefore

PUTS_AT_ONCE = 100  # of one statement

Item = TypeVar("Item")
Fact = TypeVar("Fact")
Stored = TypeVar("Stored")
FactOf = TypeVar("FactOf", contravariant=True)


class PutUnlocked(Protocol[FactOf, Stored]):
    """Puts distinct facts without the lock, as far as that is possible, see `StatedTable.put_unlocked`."""

    async def __call__(
        self,
        connection: DriverConnection,
        organization_id: int,
        facts: Sequence[FactOf],
        now: datetime,
        /,
        *,
        change: bool,
    ) -> Mapping[int, UnlockedPut[Stored]]: ...


@dataclass(frozen=True, slots=True)
class AskedPut(Generic[Fact, Stored]):
    """A fact that a caller puts. describe: makes the entry of the audit log, if the put changes anything."""

    fact: Fact
    describe: Describe[Stored]


@dataclass(eq=False, slots=True)
class LockedPut(Generic[Fact, Stored]):
    """A fact that is put under the lock. describe: see `AskedPut`. quiet: see `quiet_put`."""

    fact: Fact
    describe: Describe[Stored]
    quiet: QuietPut | None = None


@dataclass(frozen=True)
class PutKind(Generic[Fact, Stored]):
    """One kind of puts.

    key: of the fact in its organization. customer_id: of the customer to evaluate; None where there is none.
    without_lock, under_lock: how facts are put without the organization's lock, and under it. effect: see
    `engine.puts.effects`; None: its puts are evaluated whatever they change.
    """

    key: Callable[[Fact], Hashable]
    customer_id: Callable[[Fact], str | None]
    without_lock: PutUnlocked[Fact, Stored]
    under_lock: Kind[LockedPut[Fact, Stored], Put[Stored]]
    effect: Callable[[Fact, FactsBefore, datetime], Effect | None] | None = None


@dataclass(frozen=True, slots=True)
class _FirstStep(Generic[Stored]):
    """What the step without the lock did. done: None if the lock is needed; quiet: of such a put."""

    done: UnlockedPut[Stored] | None
    quiet: QuietPut | None = None


class Puts(Generic[Fact, Stored]):
    """Puts facts of one kind."""

    def __init__(
        self,
        clock: Clock,
        groups: ChangeGroups,
        evaluations: CustomerEvaluations,
        rules: RulesRegistry,
        kind: PutKind[Fact, Stored],
    ) -> None:
        self._clock = clock
        self._groups = groups
        self._evaluations = evaluations
        self._rules = rules
        self._kind = kind
        self._first_steps = Together[AskedPut[Fact, Stored], _FirstStep[Stored]](
            self._put_unlocked, lambda asked: kind.key(asked.fact), PUTS_AT_ONCE
        )

    async def put(
        self, organization: Organization, fact: Fact, describe: Describe[Stored], *, validate_only: bool
    ) -> Put[Stored]:
        """Stores a fact, unless a newer one is stored, and evaluates its customer on the change.

        describe: makes the entry of the audit log, if the put changes anything. Raises DatabaseUnavailable, and what
        refuses the put. With validate_only nothing is kept.
        """
        if validate_only:
            first = await self._would_put_unlocked(organization, fact)
        else:
            first = await self._first_steps.ask(organization, AskedPut(fact, describe))
        if (done := first.done) is not None:
            put, noted = Put(done.stored, superseded=done.superseded), done.noted
        else:
            put = await self._groups.run_together(
                organization.organization_id,
                self._kind.under_lock,
                LockedPut(fact, describe, first.quiet),
                keep=not validate_only,
            )
            noted = put.changed and put.noted
        customer_id = self._kind.customer_id(fact)
        if noted and customer_id is not None and not validate_only:
            await self._evaluations.evaluate(organization, customer_id)
        return put

    async def drain(self) -> None:
        """Waits until nothing is in progress that its groups do not know."""
        await self._first_steps.drain()

    async def _put_unlocked(
        self, organization: Organization, asked: Sequence[AskedPut[Fact, Stored]]
    ) -> Sequence[_FirstStep[Stored]]:
        organization_id, now = organization.organization_id, self._clock.now()
        facts = [one.fact for one in asked]
        known: Mapping[str, FactsBefore] = {}
        # Each statement is a transaction of its own: nothing that one of them reads has to stand until the next.
        async with self._groups.unbegun_transaction(organization_id) as raw:
            found = await self._kind.without_lock(raw, organization_id, facts, now, change=False)
            done = {position: put for position, put in found.items() if put.previous is None}
            changing = [position for position in found if position not in done]
            done |= await self._change_unlocked(raw, organization_id, asked, changing, now)
            left = [fact for position, fact in enumerate(facts) if position not in done]
            if left and self._kind.effect is not None:
                ids = {customer_id for fact in left if (customer_id := self._kind.customer_id(fact)) is not None}
                known = await facts_before_puts.read(raw, organization_id, ids)
        return [
            _FirstStep(done[position])
            if position in done
            else _FirstStep(None, self._quiet(organization_id, fact, known))
            for position, fact in enumerate(facts)
        ]

    async def _change_unlocked(
        self,
        raw: DriverConnection,
        organization_id: int,
        asked: Sequence[AskedPut[Fact, Stored]],
        changing: Sequence[int],
        now: datetime,
    ) -> dict[int, UnlockedPut[Stored]]:
        """Makes the puts that change something without the lock, in one transaction with their audit entries."""
        if not changing:
            return {}
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            facts = [asked[position].fact for position in changing]
            found = await self._kind.without_lock(raw, organization_id, facts, now, change=True)
            done = {changing[index]: put for index, put in found.items()}
            entries = [
                asked[position].describe(put.previous, put.stored)
                for position, put in done.items()
                if put.previous is not None
            ]
            await writing.write(raw, organization_id, entries, now)
            await pipelines.commit(raw)
        return done

    def _quiet(self, organization_id: int, fact: Fact, known: Mapping[str, FactsBefore]) -> QuietPut | None:
        before = known.get(self._kind.customer_id(fact) or "")
        if before is None or self._kind.effect is None:
            return None
        now = self._clock.now()
        effect = self._kind.effect(fact, before, now)
        return None if effect is None else quiet_put(self._rules.of(organization_id).cached, before, effect, now)

    async def _would_put_unlocked(self, organization: Organization, fact: Fact) -> _FirstStep[Stored]:
        """What `_put_unlocked` would do with a fact."""
        organization_id, now = organization.organization_id, self._clock.now()
        async with (
            self._groups.unbegun_transaction(organization_id) as raw,
            raw.transaction(force_rollback=True),
        ):
            found = await self._kind.without_lock(raw, organization_id, [fact], now, change=True)
        return _FirstStep(found.get(0))


Apply = Callable[[OpenChange, Sequence[Item]], Awaitable[Sequence[Stored | Exception]]]


class Distinct(Generic[Item, Stored]):
    """A kind of changes of which one statement takes only items with distinct keys, and nothing is prepared."""

    goes_last = False

    def __init__(self, key: Callable[[Item], Hashable], apply: Apply[Item, Stored]) -> None:
        self._key = key
        self._apply = apply

    def needs_preparing(self, item: Item) -> bool:
        """Whether anything is prepared for an item."""
        return False

    async def prepare(self, connection: Connection, organization_id: int, items: Sequence[Item]) -> Sequence[None]:
        """Leaves all items to `apply`."""
        return [None] * len(items)

    async def apply(self, change: OpenChange, items: Sequence[Item]) -> Sequence[Stored | Exception]:
        """Applies the items in their order; those with the same key one after the other."""
        results: dict[int, Stored | Exception] = {}
        left = list(enumerate(items))
        while left:
            now: dict[Hashable, tuple[int, Item]] = {}
            later = [one for one in left if now.setdefault(self._key(one[1]), one) is not one]
            part = replace(change, is_last=change.is_last and not later)
            applied = await self._apply(part, [item for _, item in now.values()])
            for (position, _), result in zip(now.values(), applied, strict=True):
                results[position] = result
            left = later
        return [results[position] for position in range(len(items))]


class LockedPuts(Distinct[LockedPut[Fact, Stored], Put[Stored]]):
    """Puts under the lock, each with its entry of the audit log if it changes anything."""

    async def apply(
        self, change: OpenChange, items: Sequence[LockedPut[Fact, Stored]]
    ) -> Sequence[Put[Stored] | Exception]:
        """Applies the puts in their order."""
        results = await super().apply(change, items)
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Put) and result.changed and differs(result.previous, result.stored):
                change.trail.append(item.describe(result.previous, result.stored))
        return results
