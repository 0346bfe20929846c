"""Which customers something has changed for, as far as decisions about their usage read it.

PostgreSQL notes in each row the transaction that wrote it (`xmin`). It is compared with the oldest transaction that
was open at the last look, so no row is missed; those that were written since that one began are found once more. A
look costs a few rows of each customer, and no answer for those that have not changed. What changes for all customers
of a plan, and what time changes, is not found.

The numbers of transactions of different nodes of a cluster cannot be compared. There, a look computes a digest of the
places and transactions of the rows of each customer, and compares it with that of the last look.
"""

from collections.abc import Collection, Mapping

from evaluator.routing_facts import MOST_LEVELS
from store.customers import levels
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster

# Of a look: the oldest transaction that was open; on a cluster, the digests of the customers.
Mark = int | Mapping[str, int]

# The oldest transaction that writes now.
_OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"

# Written by that transaction or a later one. `xmin` has the lower 32 bits of the number.
_NEW = "(({alias}.xmin::text::bigint - %(since)s::bigint) & 4294967295) < 2147483648"
_TABLES = {"m": "meter", "b": "balance_segment", "v": "balance", "l": "usage_limit", "c": "customer"}
_ANY = " OR ".join(
    f"EXISTS (SELECT 1 FROM {table} {alias} WHERE {alias}.organization_id = %(organization_id)s"
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


# The digests of customers. What a row has been in, its place and its transaction, no other version of it has.
_DIGESTS = "SELECT c.customer_id, {digest} FROM customer c WHERE {scope} AND c.customer_id = ANY(%(ids)s)".format(
    digest=" + ".join(
        f"coalesce((SELECT sum(hashtextextended({alias}d.ctid::text || ' ' || {alias}d.xmin::text, {seed}))"
        f" FROM {table} {alias}d WHERE {alias}d.organization_id = %(organization_id)s"
        f" AND {alias}d.customer_id = c.customer_id), 0)"
        for seed, (alias, table) in enumerate(_TABLES.items())
    ),
    scope="c.organization_id = %(organization_id)s",
).encode()


async def look(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], since: Mark | None
) -> tuple[set[str], Mark]:
    """Those of the customers for which something has changed since the last look; and the mark of this one.

    since: the mark of the last look; None finds nothing. The transaction sees one snapshot, on each node.
    """
    if on_cluster(connection):
        return await _compare(connection, organization_id, customer_ids, since)
    cursor = await connection.execute(_OLDEST)
    [(oldest,)] = await cursor.fetchall()
    if not isinstance(since, int):
        return set(), int(oldest)
    parameters = {"organization_id": organization_id, "ids": "\t".join(customer_ids), "since": since}
    cursor = await connection.execute(_CHANGED.encode(), parameters)
    return {row[0] for row in await cursor.fetchall()}, int(oldest)


async def _compare(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], since: Mark | None
) -> tuple[set[str], Mark]:
    """As `look`, by digests. A customer without an earlier digest counts as changed."""
    parents = await levels.above(connection, organization_id, customer_ids)
    wanted = sorted({*customer_ids, *parents, *parents.values()})
    cursor = await connection.execute(_DIGESTS, {"organization_id": organization_id, "ids": wanted})
    stored = dict.fromkeys(wanted, 0) | {row[0]: int(row[1]) for row in await cursor.fetchall()}
    found = {one: _with_parents(one, stored, parents) for one in customer_ids}
    if not isinstance(since, Mapping):
        return set(), found
    return {one for one, digest in found.items() if since.get(one) != digest}, found


def _with_parents(customer_id: str, stored: Mapping[str, int], parents: Mapping[str, str]) -> int:
    """One number for the digests of a customer and of those above it."""
    chain = [customer_id]
    while len(chain) < MOST_LEVELS and chain[-1] in parents:
        chain.append(parents[chain[-1]])
    return hash(tuple(stored[one] for one in chain))
