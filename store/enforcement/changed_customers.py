"""Which customers something has changed for, as far as decisions about their usage read it.

PostgreSQL notes in each row the transaction that wrote it (`xmin`). It is compared with the oldest transaction that
was open at the last look, so no row is missed; those that were written since that one began are found once more. A
look costs a few rows of each customer, and no answer for those that have not changed. What changes for all customers
of a plan, and what time changes, is not found.
"""

from collections.abc import Collection

from evaluator.routing_facts import MOST_LEVELS
from store.postgres.database import DriverConnection

# The oldest transaction that writes now.
_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"

# Written by that transaction or a later one. `xmin` has the lower 32 bits of the number.
_NEW = "(({alias}.xmin::text::bigint - %(since)s::bigint) & 4294967295) < 2147483648"
_TABLES = {"m": "meter", "b": "balance_segment", "v": "balance", "l": "usage_limit", "c": "customer"}
_ANY = " OR ".join(
    f"EXISTS (SELECT FROM {table} {alias} WHERE {alias}.organization_id = %(organization_id)s"
    f" AND {alias}.customer_id = h.customer_id AND {_NEW.format(alias=alias)})"
    for alias, table in _TABLES.items()
)

# The customers whose meters, balances, limits or facts have changed, or those of a customer above them.
_CHANGED = f"""
WITH RECURSIVE up AS (
    SELECT id COLLATE "C" AS root, id COLLATE "C" AS customer_id, 1 AS level
    FROM unnest(string_to_array(%(ids)s, E'\\t')) AS i (id)
    UNION ALL
    SELECT u.root, c.parent_customer_id, u.level + 1
    FROM up u JOIN customer c ON c.organization_id = %(organization_id)s AND c.customer_id = u.customer_id
    WHERE c.parent_customer_id IS NOT NULL AND u.level < {MOST_LEVELS}
), changed AS MATERIALIZED (
    SELECT h.customer_id FROM (SELECT DISTINCT customer_id FROM up) AS h WHERE {_ANY}
)
SELECT DISTINCT u.root FROM up u JOIN changed USING (customer_id)
"""


async def oldest(connection: DriverConnection) -> int:
    """The transaction from which on the next look has to look."""
    cursor = await connection.execute(_OLDEST)
    [(found,)] = await cursor.fetchall()
    return int(found)


async def changed_since(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], since: int
) -> set[str]:
    """Those of the customers for which something has changed since a transaction of `oldest`."""
    parameters = {"organization_id": organization_id, "ids": "\t".join(customer_ids), "since": since}
    cursor = await connection.execute(_CHANGED.encode(), parameters)
    return {row[0] for row in await cursor.fetchall()}
