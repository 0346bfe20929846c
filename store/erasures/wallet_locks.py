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


async def lock_wallets(connection: AsyncConnection, organization_id: int, customer_ids: Iterable[str]) -> None:
    """Locks those of the customers' wallets that exist, in the order in which `store.balances.wallets` does."""
    raw, ids = await driver(connection), sorted(customer_ids)
    if on_cluster(raw):
        await row_locks.rows(await row_locks.send_by_shard(raw, _LOCK, ids, lambda part: _of(organization_id, part)))
    else:
        await raw.execute(_LOCK, _of(organization_id, ids))


def _of(organization_id: int, customer_ids: list[str]) -> dict[str, object]:
    return {"organization_id": organization_id, "customer_ids": customer_ids}
