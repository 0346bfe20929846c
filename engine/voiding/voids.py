"""Voids: the transaction that takes counted events back.

Its steps take the same locks as the commit of these events, in the same order: the events are found and locked, then
balances get back what they drew, and gauges are evaluated without them (`engine.voiding.uncounting`).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.meters.known_targets import KnownTargets
from engine.meters.usage_meters import open_usage_meters
from engine.rules.transaction import Transaction, Transactions
from engine.voiding.uncounting import uncount
from evaluator.events import UsageEvent
from evaluator.voids import EventKey, VoidOutcome
from store.identity.organizations import Organization
from store.postgres.database import Connection
from store.usage import voids


@dataclass(frozen=True)
class Voided:
    """What became of each key, in their order; events: those that were voided. time: when."""

    outcomes: Sequence[VoidOutcome]
    events: Sequence[UsageEvent]
    time: datetime


@dataclass
class _Found:
    """What the keys name. outcomes: by index of the key. events: to be voided, in the order of their locks."""

    outcomes: dict[int, VoidOutcome] = field(default_factory=dict)
    events: list[UsageEvent] = field(default_factory=list)


class UsageVoids:
    """Voids counted events of an organization."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def void(
        self, connection: Connection, organization: Organization, keys: Sequence[EventKey], key_id: str | None
    ) -> Voided:
        """Takes back those of the events that can be, in the caller's transaction. key_id: the API key that asks."""
        transaction = await self._transactions.begin(connection, organization)
        # Meters first: their wallets are locked before events, so the events are read before they are locked. Of
        # customers with enforced limits, one that is stored in between is voided by the next request.
        before = await voids.read(transaction.driver, transaction.organization_id, keys)
        events = [event for of_key in before.values() for event in of_key]
        await transaction.load_facts(events)
        meters = await open_usage_meters(transaction, KnownTargets(), events, set())
        stored = await voids.lock(transaction.driver, transaction.organization_id, keys)
        if meters is not None:
            known = set(map(_place, events))
            stored = {
                index: [one for one in of_key if _place(one) in known or one.customer_id not in meters.covered]
                for index, of_key in stored.items()
            }
        await transaction.load_facts([event for of_key in stored.values() for event in of_key])
        found = _find(transaction, keys, stored)
        if found.events:
            delete = functools.partial(_delete, transaction, found.events, key_id)
            await uncount(transaction, found.events, delete, meters)
        elif meters is not None:
            await meters.write()
        await _add_missing(transaction, keys, found)
        return Voided([found.outcomes[index] for index in range(len(keys))], found.events, transaction.now)


def _place(event: UsageEvent) -> tuple[str, str, datetime]:
    return event.customer_id, event.event_id, event.event_time


def _find(transaction: Transaction, keys: Sequence[EventKey], stored: Mapping[int, Sequence[UsageEvent]]) -> _Found:
    """Decides about each key that names a stored event."""
    found = _Found()
    taken: set[tuple[str, str, datetime]] = set()
    for index in range(len(keys)):
        match stored.get(index, ()):
            case []:
                continue
            case [event, *_] if transaction.router.customer(event.customer_id).being_erased:
                continue  # like an event that is erased already
            case [event]:
                identity = _place(event)
                if identity in taken:
                    found.outcomes[index] = VoidOutcome.ALREADY_VOIDED
                elif _is_too_old(transaction, event):
                    found.outcomes[index] = VoidOutcome.TOO_OLD
                else:
                    taken.add(identity)
                    found.events.append(event)
                    found.outcomes[index] = VoidOutcome.VOIDED
            case _:
                found.outcomes[index] = VoidOutcome.AMBIGUOUS
    return found


async def _delete(transaction: Transaction, found: Sequence[UsageEvent], key_id: str | None) -> None:
    await voids.void(transaction.driver, transaction.organization_id, found, transaction.now, key_id)


def _is_too_old(transaction: Transaction, event: UsageEvent) -> bool:
    """Whether every period of an event is out of grace, so that a new event of its time would be refused."""
    oldest = transaction.now - transaction.grace
    if event.event_time > oldest:
        return False
    end = transaction.router.last_period_end(event.customer_id, event.subscription_id, event.event_time)
    return end <= oldest


async def _add_missing(transaction: Transaction, keys: Sequence[EventKey], found: _Found) -> None:
    """Adds the outcomes of the keys that name no stored event."""
    missing = [index for index in range(len(keys)) if index not in found.outcomes]
    if not missing:
        return
    before = await voids.voided_before(
        transaction.driver, transaction.organization_id, [keys[index] for index in missing]
    )
    for position, index in enumerate(missing):
        found.outcomes[index] = VoidOutcome.ALREADY_VOIDED if position in before else VoidOutcome.NOT_FOUND
