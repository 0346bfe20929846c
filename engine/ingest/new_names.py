"""What the usage of a commit at a node names for the first time, or this process does not know yet.

A commit at a node reads no rules. So a transaction at the coordinator, which holds the lock there, reads what the
commit needs, and registers new metrics, which lie there. The commit registers new customers and subscriptions beside
their usage, so that it still changes one node alone, and nothing is stored of a customer without its registration. It
goes on only if the epoch is the one at which the facts were read.
"""

from collections.abc import Sequence
from datetime import datetime

from engine.rules.organization_rules import OrganizationRules
from engine.rules.preparing import Prepared
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from evaluator.routing import Router
from store.identity import organizations
from store.postgres.database import Database
from store.postgres.distributed import NeedsCoordinator
from store.rules import unregistered


async def prepare(
    database: Database, rules: OrganizationRules, organization_id: int, events: Sequence[UsageEvent], now: datetime
) -> Prepared:
    """Reads what the events name, in a transaction of its own at the coordinator.

    `rules.committed` or `rules.rolled_back` must follow with what is to be registered. Raises NotAtNode, and
    DatabaseUnavailable.
    """
    registered = rules.begin()
    router: Router | None = None
    try:
        async with database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
            router = await rules.router(connection, epoch, in_parts=True)
            metrics = await rules.prepare(connection, router, events, now, registered)
    except BaseException:
        rules.rolled_back(router, registered)
        raise
    rules.know_metrics(router, epoch, metrics)
    return Prepared(registered, epoch, now)


async def register(transaction: Transaction, prepared: Prepared) -> None:
    """Registers, at the node, what was prepared. Raises NeedsCoordinator if that is not right any more."""
    registered, shards = prepared.registered, transaction.shards
    if not registered:
        return
    if shards is None or transaction.epoch != prepared.epoch:
        raise NeedsCoordinator
    made = await unregistered.register_in_shards(
        transaction.driver,
        transaction.organization_id,
        registered.customers,
        registered.subscriptions,
        shards,
        prepared.epoch,
        prepared.now,
    )
    if not made:
        raise NeedsCoordinator  # another transaction has registered one of them, perhaps with usage
