"""What puts of customers, subscriptions and limits write under the organization's lock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.changes.open_change import OpenChange
from engine.puts import effects
from engine.puts.changed_limit import LimitedAlerts
from engine.puts.effects import Effect
from engine.puts.puts import Fact, LockedPut, LockedPuts, PutKind, Stored
from store.accounts import customer_names, customer_parents, customer_puts, known_ids, quiet_puts, subscription_puts
from store.accounts.customers import CustomerFact, StoredCustomer
from store.accounts.known_ids import ReferencedIds
from store.accounts.puts import Put, UnlockedPut
from store.accounts.quiet_puts import QuietPut
from store.accounts.subscriptions import StoredSubscription, SubscriptionFact
from store.limits import changes as limit_changes
from store.limits.limits import LimitFact, StoredLimit
from store.postgres.database import Connection, DriverConnection
from store.rules import routing_facts
from store.rules.facts_before_puts import FactsBefore


class _NamesGiven(Exception):
    """A put gives names to a customer, and may be refused after its write: it is made in a savepoint of its own.

    `customer_parents.ManyMoved` has the same effect.
    """


async def _quiet(change: OpenChange, items: Sequence[LockedPut[Fact, Stored]]) -> Sequence[QuietPut | None]:
    """The puts that may be quiet; none if gauges must not be taken as evaluated, because another change follows."""
    if not change.is_last:
        return ()
    return await quiet_puts.without_used(change.driver, change.organization_id, [item.quiet for item in items])


async def _put_customers(
    change: OpenChange, items: Sequence[LockedPut[CustomerFact, StoredCustomer]]
) -> Sequence[Put[StoredCustomer] | Exception]:
    checked = await customer_parents.check(change.driver, change.organization_id, [item.fact for item in items])
    if checked.unknown:
        await routing_facts.register_customers(
            change.driver, change.organization_id, checked.unknown, change.epoch, change.now
        )
    left = [item for position, item in enumerate(items) if position not in checked.refused]
    made = iter(await _put_checked_customers(change, left) if left else ())
    return [checked.refused.get(position) or next(made) for position in range(len(items))]


async def _put_checked_customers(
    change: OpenChange, items: Sequence[LockedPut[CustomerFact, StoredCustomer]]
) -> Sequence[Put[StoredCustomer] | Exception]:
    facts = [item.fact for item in items]
    found = await customer_puts.put(
        change.driver, change.organization_id, facts, change.epoch, change.now, await _quiet(change, items)
    )
    results: list[Put[StoredCustomer] | Exception] = []
    for one in found:
        if isinstance(one, Exception):
            results.append(one)
            continue
        stored = one.put.stored
        if one.names_changed:
            if len(facts) > 1 and (stored.external_id or stored.aliases):
                raise _NamesGiven
            await customer_names.replace_names(
                change.connection,
                change.organization_id,
                stored.customer_id,
                stored.external_id,
                stored.aliases,
            )
        results.append(one.put)
    return results


async def _put_subscriptions(
    change: OpenChange, items: Sequence[LockedPut[SubscriptionFact, StoredSubscription]]
) -> Sequence[Put[StoredSubscription] | Exception]:
    facts = [item.fact for item in items]
    return await subscription_puts.put(change.driver, change.organization_id, facts, change.epoch, change.now)


CUSTOMERS = PutKind[CustomerFact, StoredCustomer](
    key=lambda fact: fact.customer_id,
    customer_id=lambda fact: fact.customer_id,
    without_lock=customer_puts.put_unlocked,
    under_lock=LockedPuts(lambda item: item.fact.customer_id, _put_customers),
    effect=effects.of_customer,
)
SUBSCRIPTIONS = PutKind[SubscriptionFact, StoredSubscription](
    key=lambda fact: (fact.customer_id, fact.subscription_id),
    customer_id=lambda fact: fact.customer_id,
    without_lock=subscription_puts.put_unlocked,
    under_lock=LockedPuts(lambda item: (item.fact.customer_id, item.fact.subscription_id), _put_subscriptions),
)


@dataclass(eq=False, slots=True)
class LimitPut:
    """A limit that is put, and the alerts that it concerns if it is a plan's.

    named: the ids in its subject. unknown: those of them that the organization did not know before the put.
    """

    fact: LimitFact
    named: ReferencedIds
    unknown: ReferencedIds = field(default_factory=ReferencedIds)
    alerts: LimitedAlerts = field(default_factory=LimitedAlerts)


class _LimitPuts(LockedPuts[LimitPut, StoredLimit]):
    """Puts of limits, which begin backfills where the limit is a plan's."""

    def __init__(self) -> None:
        super().__init__(lambda item: item.fact.fact.limit_id, _put_limits)

    def needs_preparing(self, item: LockedPut[LimitPut, StoredLimit]) -> bool:
        """Whether the limit is a plan's."""
        return item.fact.fact.subject.plan_id is not None

    async def prepare(
        self, connection: Connection, organization_id: int, items: Sequence[LockedPut[LimitPut, StoredLimit]]
    ) -> Sequence[None]:
        """Reads the alerts that limits of plans concern."""
        for item in items:
            await item.fact.alerts.read(connection, organization_id, item.fact.fact.subject)
        return [None] * len(items)


async def _put_limits(
    change: OpenChange, items: Sequence[LockedPut[LimitPut, StoredLimit]]
) -> Sequence[Put[StoredLimit] | Exception]:
    facts = [item.fact.fact for item in items]
    results = await limit_changes.put(
        change.driver, change.organization_id, facts, change.epoch, change.now, await _quiet(change, items)
    )
    for item, result in zip(items, results, strict=True):
        if not isinstance(result, Exception) and result.changed:
            await item.fact.alerts.begin_backfills(change, item.fact.fact.subject)
    return results


def _limit_effect(put: LimitPut, before: FactsBefore, now: datetime) -> Effect | None:
    return effects.of_limit(put.fact, before, now)


async def _put_limits_unlocked(
    connection: DriverConnection, organization_id: int, items: Sequence[LimitPut], now: datetime, *, change: bool
) -> dict[int, UnlockedPut[StoredLimit]]:
    unknown = await known_ids.find_unknown(connection, organization_id, [item.named for item in items])
    for item in items:
        item.unknown = unknown[item.named]
    facts = [item.fact for item in items]
    return await limit_changes.put_unlocked(connection, organization_id, facts, now, change=change)


LIMITS = PutKind[LimitPut, StoredLimit](
    key=lambda put: put.fact.limit_id,
    customer_id=lambda put: put.fact.subject.customer_id,
    without_lock=_put_limits_unlocked,
    under_lock=_LimitPuts(),
    effect=_limit_effect,
)
