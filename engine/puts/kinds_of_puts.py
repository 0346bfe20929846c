"""What puts of customers, subscriptions and limits write under the organization's lock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.changes.open_change import OpenChange
from engine.puts.changed_limit import LimitedAlerts
from engine.puts.puts import Distinct, PutKind
from store.accounts import customer_names, customer_puts, known_ids, subscription_puts
from store.accounts.customers import CustomerFact, StoredCustomer
from store.accounts.known_ids import ReferencedIds
from store.accounts.puts import Put, UnlockedPut
from store.accounts.subscriptions import StoredSubscription, SubscriptionFact
from store.limits import changes as limit_changes
from store.limits.limits import LimitFact, StoredLimit
from store.postgres.database import Connection, DriverConnection


class _NamesGiven(Exception):
    """A put gives names to a customer, and may be refused after its write: it is made in a savepoint of its own."""


async def _put_customers(
    change: OpenChange, facts: Sequence[CustomerFact]
) -> Sequence[Put[StoredCustomer] | Exception]:
    found = await customer_puts.put(change.driver, change.organization_id, facts, change.epoch, change.now)
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
    change: OpenChange, facts: Sequence[SubscriptionFact]
) -> Sequence[Put[StoredSubscription] | Exception]:
    return await subscription_puts.put(change.driver, change.organization_id, facts, change.epoch, change.now)


CUSTOMERS = PutKind[CustomerFact, StoredCustomer](
    key=lambda fact: fact.customer_id,
    customer_id=lambda fact: fact.customer_id,
    without_lock=customer_puts.put_unlocked,
    under_lock=Distinct(lambda fact: fact.customer_id, _put_customers),
)
SUBSCRIPTIONS = PutKind[SubscriptionFact, StoredSubscription](
    key=lambda fact: (fact.customer_id, fact.subscription_id),
    customer_id=lambda fact: fact.customer_id,
    without_lock=subscription_puts.put_unlocked,
    under_lock=Distinct(lambda fact: (fact.customer_id, fact.subscription_id), _put_subscriptions),
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


class _LimitPuts(Distinct[LimitPut, Put[StoredLimit]]):
    """Puts of limits, which begin backfills where the limit is a plan's."""

    def __init__(self) -> None:
        super().__init__(lambda put: put.fact.limit_id, _put_limits)

    def needs_preparing(self, item: LimitPut) -> bool:
        """Whether the limit is a plan's."""
        return item.fact.subject.plan_id is not None

    async def prepare(
        self, connection: Connection, organization_id: int, items: Sequence[LimitPut]
    ) -> Sequence[None]:
        """Reads the alerts that limits of plans concern."""
        for item in items:
            await item.alerts.read(connection, organization_id, item.fact.subject)
        return [None] * len(items)


async def _put_limits(change: OpenChange, items: Sequence[LimitPut]) -> Sequence[Put[StoredLimit] | Exception]:
    facts = [item.fact for item in items]
    results = await limit_changes.put(change.driver, change.organization_id, facts, change.epoch, change.now)
    for item, result in zip(items, results, strict=True):
        if not isinstance(result, Exception) and result.changed:
            await item.alerts.begin_backfills(change, item.fact.subject)
    return results


async def _put_limits_unlocked(
    connection: DriverConnection, organization_id: int, items: Sequence[LimitPut], now: datetime
) -> dict[int, UnlockedPut[StoredLimit]]:
    unknown = await known_ids.find_unknown(connection, organization_id, [item.named for item in items])
    for item in items:
        item.unknown = unknown[item.named]
    return await limit_changes.put_unlocked(connection, organization_id, [item.fact for item in items], now)


LIMITS = PutKind[LimitPut, StoredLimit](
    key=lambda put: put.fact.limit_id,
    customer_id=lambda put: put.fact.subject.customer_id,
    without_lock=_put_limits_unlocked,
    under_lock=_LimitPuts(),
)
