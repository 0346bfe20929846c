"""The statements of a small commit: everything up to the commit itself, in one round trip."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from evaluator.events import UsageEvent
from store.balances import wallets
from store.balances.wallets import Wallet
from store.citus import shard_tables
from store.citus.shard_tables import ShardsOf, by_shard
from store.identity import organizations
from store.identity.organizations import LockedOrganization
from store.postgres.database import DriverConnection
from store.postgres.distributed import NeedsCoordinator
from store.usage import events as stored_events
from store.usage import gauge_moves


@dataclass(frozen=True, slots=True)
class Done:
    """What the statements found.

    standing: the organization, which is locked. stored: the number of events that were new. held: the wallets that
    are locked, of the customers on whose balances usage draws. moved: as from `gauge_moves.move`.
    """

    standing: LockedOrganization
    stored: int
    held: dict[str, Wallet]
    moved: list[gauge_moves.Moved]


async def store_and_move(
    connection: DriverConnection,
    organization_id: int,
    now: datetime,
    events: Sequence[UsageEvent],
    customer_ids: Iterable[str],
    moves: gauge_moves.Moves,
    all_values: bool,
    shards: ShardsOf | None = None,
) -> Done:
    """Locks the organization (shared), stores events, locks wallets, and moves gauges, in the order of all locks.

    Begins the transaction, which must be a `Database.unbegun_transaction`. Nothing is checked between the statements:
    the caller has to, and rolls back if one of them should not have followed the one before.

    shards: of all customers, at the node of a cluster. Raises NeedsCoordinator if one does not lie there any more.
    """
    if shards is not None:
        return await _in_shards(connection, organization_id, now, events, moves, all_values, shards)
    async with connection.pipeline():
        await connection.execute("BEGIN", prepare=False)
        locked = await organizations.send_lock_shared(connection, organization_id)
        inserted = await stored_events.send_insert(connection, organization_id, now, events)
        held = await wallets.send_lock_with_drawdown(connection, organization_id, customer_ids)
        moved = None
        if moves.totals:
            moved = await gauge_moves.send_move(connection, organization_id, moves, now, all_values)
    return Done(
        await organizations.locked(locked),
        inserted.rowcount,
        await wallets.held(held),
        [] if moved is None else await gauge_moves.moved(moved),
    )


async def _in_shards(
    connection: DriverConnection,
    organization_id: int,
    now: datetime,
    events: Sequence[UsageEvent],
    moves: gauge_moves.Moves,
    all_values: bool,
    shards: ShardsOf,
) -> Done:
    used = by_shard((event.customer_id for event in events), shards)
    try:
        async with connection.pipeline():
            await connection.execute("BEGIN", prepare=False)
            locked = await organizations.send_lock_shared(connection, organization_id)
            placed = await shard_tables.send_hold(connection, used)
            inserted = []
            for shard, indexes in used.items():
                part = [events[index] for index in indexes]
                inserted.append(
                    await stored_events.send_insert(connection, organization_id, now, part, table=shard.event)
                )
            customer_ids = {event.customer_id for event in events}
            held = await wallets.send_lock_with_drawdown(connection, organization_id, customer_ids, shards)
            moved = await gauge_moves.send_move_of_shards(connection, organization_id, moves, now, all_values, shards)
    except psycopg.errors.UndefinedTable as error:  # of a shard that was moved, and removed from its old place
        raise NeedsCoordinator from error
    standing = await organizations.locked(locked)
    await shard_tables.check(placed, used)
    stored = sum(one.rowcount for one in inserted)
    return Done(standing, stored, await wallets.held(held), await gauge_moves.moved_of_shards(moved))
