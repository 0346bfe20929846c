"""The numbers of new entries in the ledger of balances on a cluster.

On one PostgreSQL a sequence gives them. On a cluster each node takes numbers of its own from a sequence: those of
commits at a worker would be above what the coordinator writes later, and a customer's shard can move to a node with
lower numbers.
"""

from collections.abc import Sequence

from store.postgres.database import DriverConnection

# The subquery reads one entry of the primary key's index for each balance.
_LAST = b"""
SELECT b.customer_id, (
    SELECT max(e.entry_number) FROM balance_entry e
    WHERE e.organization_id = b.organization_id AND e.customer_id = b.customer_id AND e.balance_id = b.balance_id
)
FROM balance b
WHERE b.organization_id = %(organization_id)s AND b.customer_id = ANY(%(customer_ids)s)
    AND b.balance_id = ANY(%(balance_ids)s)
"""


async def next_numbers(
    connection: DriverConnection, organization_id: int, customer_ids: Sequence[str], balance_ids: Sequence[str]
) -> list[int]:
    """The numbers of entries that follow each other, by their customers and balances.

    They rise with the entries of a customer, and are above all numbers of the balances. The balances are stored, and
    the transaction holds the customers' wallets.
    """
    parameters = {
        "organization_id": organization_id,
        "customer_ids": sorted(set(customer_ids)),
        "balance_ids": sorted(set(balance_ids)),
    }
    last = dict.fromkeys(customer_ids, 0)
    for customer_id, number in await (await connection.execute(_LAST, parameters)).fetchall():
        last[customer_id] = max(last[customer_id], number or 0)
    numbers = []
    for customer_id in customer_ids:
        last[customer_id] += 1
        numbers.append(last[customer_id])
    return numbers
