"""The customers above and below others, level by level: a statement for each level, of which there are MOST_LEVELS.

For a cluster, where the customers of a chain lie on several nodes and one statement cannot follow it. On one
PostgreSQL the statements that need chains walk them themselves.
"""

from collections.abc import Iterable
from typing import NamedTuple

from evaluator.routing_facts import MOST_LEVELS
from store.postgres.database import DriverConnection

# Usage below a customer that is being erased does not count above it: see `Router.chain`.
_CHILDREN = b"""
SELECT c.customer_id, c.parent_customer_id FROM customer c
WHERE c.organization_id = %(organization_id)s AND c.parent_customer_id = ANY(%(ids)s) AND NOT EXISTS (
    SELECT FROM erasure_job j WHERE j.organization_id = c.organization_id AND j.customer_id = c.customer_id
)
"""
_PARENTS = b"""
SELECT customer_id, parent_customer_id FROM customer
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s) AND parent_customer_id IS NOT NULL
"""


class Below(NamedTuple):
    """A customer whose usage counts at another, or at itself. level: 1 of itself."""

    root: str
    customer_id: str
    level: int


async def below(connection: DriverConnection, organization_id: int, roots: Iterable[str]) -> list[Below]:
    """The customers, each with itself and all below it; none below one that is being erased."""
    level = [Below(root, root, 1) for root in sorted(set(roots))]
    found = list(level)
    while level and level[0].level < MOST_LEVELS:
        by_parent: dict[str, list[str]] = {}
        ids = sorted({one.customer_id for one in level})
        cursor = await connection.execute(_CHILDREN, {"organization_id": organization_id, "ids": ids})
        for customer_id, parent in await cursor.fetchall():
            by_parent.setdefault(parent, []).append(customer_id)
        level = [
            Below(one.root, child, one.level + 1) for one in level for child in by_parent.get(one.customer_id, ())
        ]
        found += level
    return found


async def above(connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]) -> dict[str, str]:
    """The parents of the customers, of those parents, and so on: the parent by the id."""
    parents, level = dict[str, str](), set(customer_ids)
    for _ in range(MOST_LEVELS - 1):
        if not level:
            break
        found = await directly_above(connection, organization_id, level)
        level = set(found.values()) - parents.keys() - found.keys()
        parents |= found
    return parents


async def directly_above(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str]
) -> dict[str, str]:
    """The parents of those of the customers that have one, by the id."""
    cursor = await connection.execute(_PARENTS, {"organization_id": organization_id, "ids": sorted(customer_ids)})
    return dict[str, str](await cursor.fetchall())
