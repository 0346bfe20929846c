"""The wallets of customers whose meters and reservations an erasure changes."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres import row_locks
from store.postgres.database import driver
from store.postgres.distributed import on_cluster

_LOCK = b"""
SELECT 1 FROM wallet WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
ORDER BY customer_id FOR UPDATE
"""
# Of a cluster: see `store.postgres.row_locks`.
_LOCK_ONE = b"""
SELECT 1 FROM wallet WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s FOR UPDATE
"""


async def lock_wallets(connection: AsyncConnection, organization_id: int, customer_ids: Iterable[str]) -> None:
    """Locks those of the customers' wallets that exist, in the order of the ids, as `store.balances.wallets` does."""
    raw, ids = await driver(connection), sorted(customer_ids)
    if on_cluster(raw):
        each = {one: {"organization_id": organization_id, "customer_id": one} for one in ids}
        await row_locks.rows(await row_locks.send_each(raw, _LOCK_ONE, each))
    else:
        await raw.execute(_LOCK, {"organization_id": organization_id, "customer_ids": ids})
