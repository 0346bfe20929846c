"""Wallets: the lock on everything that a customer holds and owes.

Whoever reads a customer's balances or invoices in order to change them, or what follows from them, holds the
customer's wallet. In the order of all locks it comes after those of organizations, of what is created on first
sight, and of events, and before those of balances, invoices, timers and gauges.
"""

from collections.abc import Iterable

from store.database import Connection, driver

# Two statements, and all of the first before any of the second: whoever waits in the second has passed the first,
# and so waits for nobody's new row while it holds an old one that the other wants.
_CREATE = """
INSERT INTO wallet (organization_id, customer_id)
SELECT %(organization_id)s, id FROM unnest(%(ids)s::text[]) AS i (id)
ON CONFLICT DO NOTHING
"""
_LOCK = """
SELECT FROM wallet WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
ORDER BY customer_id FOR UPDATE
"""


async def lock(connection: Connection, organization_id: int, customer_ids: Iterable[str]) -> None:
    """Holds the wallets of these customers until the transaction ends; waits for whoever holds one."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "ids": sorted(set(customer_ids))}
    async with raw.pipeline():
        await raw.execute(_CREATE, parameters)
        await raw.execute(_LOCK, parameters)
