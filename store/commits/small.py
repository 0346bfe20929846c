"""The statements of a small commit: everything up to the commit itself, in one round trip."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from evaluator.events import UsageEvent
from store.balances import wallets
from store.balances.wallets import Wallet
from store.identity import organizations
from store.identity.organizations import LockedOrganization
from store.postgres.database import DriverConnection
from store.usage import events as stored_events
from store.usage import gauges


@dataclass(frozen=True, slots=True)
class Done:
    """What the statements found.

    standing: the organization, which is locked. stored: the number of events that were new. held: the wallets that
    are locked, of the customers on whose balances usage draws. moved: as from `gauges.move`.
    """

    standing: LockedOrganization
    stored: int
    held: dict[str, Wallet]
    moved: list[gauges.Moved]


async def store_and_move(
    connection: DriverConnection,
    organization_id: int,
    now: datetime,
    events: Sequence[UsageEvent],
    customer_ids: Iterable[str],
    moves: gauges.Moves,
    all_values: bool,
) -> Done:
    """Locks the organization (shared), stores events, locks wallets, and moves gauges, in the order of all locks.

    Begins the transaction, which must be a `Database.unbegun_transaction`. Nothing is checked between the statements:
    the caller has to, and rolls back if one of them should not have followed the one before.
    """
    async with connection.pipeline():
        await connection.execute("BEGIN", prepare=False)
        locked = await organizations.send_lock_shared(connection, organization_id)
        inserted = await stored_events.send_insert(connection, organization_id, now, events)
        held = await wallets.send_lock_with_drawdown(connection, organization_id, customer_ids)
        moved = await gauges.send_move(connection, organization_id, moves, now, all_values) if moves.totals else None
    return Done(
        await organizations.locked(locked),
        inserted.rowcount,
        await wallets.held(held),
        [] if moved is None else await gauges.moved(moved),
    )
