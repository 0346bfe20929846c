"""The customers above and below others, as `store.accounts.customer_parents` needs them.

On one PostgreSQL, a statement walks the levels. The customers of a chain lie on several nodes of a cluster, so there
it is a statement for each level, of which there are MOST_LEVELS at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from evaluator.routing_facts import MOST_LEVELS
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a customer. parent: None also for one that does not exist."""

    exists: bool
    parent: str | None
    as_of_time: datetime | None
    is_parent: bool
    erased: bool


def _is_parent(customer_id: str) -> str:
    """A condition: a customer has any below it. It compares the first parent at or after the id, in the index."""
    return (
        "coalesce((SELECT p.parent_customer_id FROM customer p WHERE p.organization_id = %(organization_id)s"
        f' AND p.parent_customer_id >= {customer_id} COLLATE "C" ORDER BY p.parent_customer_id LIMIT 1)'
        f" = {customer_id}, false)"
    )


def _next_below(condition: str) -> str:
    """The first child in the index that meets a condition on its parent and its own id, with its parent, `above`."""
    return f"""
        SELECT parent_customer_id AS above, customer_id AS child FROM customer
        WHERE organization_id = %(organization_id)s AND parent_customer_id IS NOT NULL AND {condition}
        ORDER BY parent_customer_id, customer_id LIMIT 1
    """


def _next_parent(customer_id: str) -> str:
    """The first parent in the index at or after an id."""
    return f"""
        SELECT parent_customer_id AS parent FROM customer
        WHERE organization_id = %(organization_id)s AND parent_customer_id >= {customer_id}
        ORDER BY parent_customer_id LIMIT 1
    """


# The customers, and those that stand above them. The subqueries with LIMIT take each row by its key.
_ABOVE = f"""
WITH RECURSIVE above (customer_id, level) AS (
    SELECT id COLLATE "C", 1 FROM unnest(%(ids)s::text[]) AS i (id)
    UNION
    SELECT c.parent_customer_id, level + 1 FROM above a CROSS JOIN LATERAL (
        SELECT parent_customer_id FROM customer
        WHERE organization_id = %(organization_id)s AND customer_id = a.customer_id LIMIT 1
    ) AS c
    WHERE c.parent_customer_id IS NOT NULL AND level < %(most_levels)s
)
SELECT a.customer_id, c.customer_id IS NOT NULL AS exists, c.parent_customer_id AS parent, c.as_of_time,
       {_is_parent("a.customer_id")} AS is_parent, (
           SELECT true FROM erasure_job
           WHERE organization_id = %(organization_id)s AND customer_id = a.customer_id LIMIT 1
       ) IS NOT NULL AS erased
FROM (SELECT DISTINCT customer_id FROM above) AS a LEFT JOIN LATERAL (
    SELECT customer_id, parent_customer_id, as_of_time FROM customer
    WHERE organization_id = %(organization_id)s AND customer_id = a.customer_id LIMIT 1
) AS c ON true
""".encode()

# Of the customers directly below some: those that have others below them. The customers below one, and the parents of
# the organization, are each in the order of ids in the index. Both are walked at once, each up to where the other one
# is: an organization with 100,000 customers below it and ten parents takes some twenty steps. A comparison of both
# columns, and not of the first with a value, keeps PostgreSQL from walking another index.
_FIRST_BELOW = _next_below("(parent_customer_id, customer_id) > (i.id, '')")
_NEXT_BELOW = _next_below(
    "(parent_customer_id, customer_id) >= (w.above, w.parent)"
    " AND (parent_customer_id, customer_id) > (w.above, w.child)"
)
_PARENTS_BELOW = f"""
WITH RECURSIVE walk (above, child, parent) AS (
    SELECT c.above, c.child, p.parent
    FROM unnest(%(ids)s::text[]) AS i (id)
    CROSS JOIN LATERAL ({_FIRST_BELOW}) AS c CROSS JOIN LATERAL ({_next_parent("c.child")}) AS p
    WHERE c.above = i.id
    UNION ALL
    SELECT c.above, c.child, p.parent
    FROM walk w CROSS JOIN LATERAL ({_NEXT_BELOW}) AS c CROSS JOIN LATERAL ({_next_parent("c.child")}) AS p
    WHERE c.above = w.above
)
SELECT child FROM walk WHERE child = parent
""".encode()


async def read(connection: DriverConnection, organization_id: int, ids: list[str]) -> dict[str, Known]:
    """The customers, and those above them, by their ids."""
    if on_cluster(connection):
        return await _read_levels(connection, organization_id, ids)
    parameters = {"organization_id": organization_id, "ids": ids, "most_levels": MOST_LEVELS + 2}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ABOVE, parameters)
        rows: list[dict[str, Any]] = await cursor.fetchall()
    return {row.pop("customer_id"): Known(**row) for row in rows}


async def levels_below(connection: DriverConnection, organization_id: int, customer_id: str) -> int:
    """How many levels of customers stand below a customer that has some; counts no more than MOST_LEVELS.

    Costs some searches of the index for each parent whose id is between those of the customers below it.
    """
    below = _CHILDREN_THAT_ARE_PARENTS if on_cluster(connection) else _PARENTS_BELOW
    ids, levels = [customer_id], 1
    while levels < MOST_LEVELS:
        cursor = await connection.execute(below, {"organization_id": organization_id, "ids": ids})
        ids = [row[0] for row in await cursor.fetchall()]
        if not ids:
            break
        levels += 1
    return levels


_LEVEL = b"""
SELECT customer_id, parent_customer_id, as_of_time FROM customer
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
"""
_PARENTS = b"""
SELECT DISTINCT parent_customer_id FROM customer
WHERE organization_id = %(organization_id)s AND parent_customer_id = ANY(%(ids)s)
"""
_ERASED = b"""
SELECT customer_id FROM erasure_job WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
"""
_CHILDREN_THAT_ARE_PARENTS = b"""
SELECT DISTINCT parent_customer_id FROM customer
WHERE organization_id = %(organization_id)s AND parent_customer_id IN (
    SELECT customer_id FROM customer
    WHERE organization_id = %(organization_id)s AND parent_customer_id = ANY(%(ids)s)
)
"""


async def _read_levels(connection: DriverConnection, organization_id: int, ids: list[str]) -> dict[str, Known]:
    """As `read`, a level after the other."""
    stored, level = dict[str, tuple[str | None, datetime | None]](), set(ids)
    asked = set[str]()
    for _ in range(MOST_LEVELS + 2):
        asked |= level
        rows = await _fetch(connection, _LEVEL, organization_id, level)
        stored |= {customer_id: (parent, as_of_time) for customer_id, parent, as_of_time in rows}
        level = {parent for _, parent, _ in rows if parent is not None} - asked
        if not level:
            break
    parents = {row[0] for row in await _fetch(connection, _PARENTS, organization_id, asked)}
    erased = {row[0] for row in await _fetch(connection, _ERASED, organization_id, asked)}
    return {
        one: Known(one in stored, *stored.get(one, (None, None)), is_parent=one in parents, erased=one in erased)
        for one in asked
    }


async def _fetch(
    connection: DriverConnection, statement: bytes, organization_id: int, ids: set[str]
) -> Sequence[tuple[Any, ...]]:
    cursor = await connection.execute(statement, {"organization_id": organization_id, "ids": sorted(ids)})
    return await cursor.fetchall()
