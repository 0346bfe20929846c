"""Parents of customers: which parents puts may give, so that no customer stands above itself or too deep.

A transaction that gives parents must hold the organization's lock exclusively: then no other one gives any, and two
puts that together would make a circle see each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from evaluator.routing_facts import MOST_LEVELS
from store.accounts.customers import CustomerFact
from store.accounts.puts import is_newer
from store.erasures.jobs import CustomerBeingErased
from store.postgres.database import DriverConnection


class ParentCycle(Exception):
    """With this parent, the customer would stand above itself."""

    def __init__(self, customer_id: str, parent_customer_id: str) -> None:
        super().__init__(customer_id, parent_customer_id)
        self.customer_id = customer_id
        self.parent_customer_id = parent_customer_id


class ParentTooDeep(Exception):
    """With this parent, more than MOST_LEVELS customers would stand one above the other."""

    def __init__(self, customer_id: str, parent_customer_id: str) -> None:
        super().__init__(customer_id, parent_customer_id)
        self.customer_id = customer_id
        self.parent_customer_id = parent_customer_id


class ManyMoved(Exception):
    """Several puts are checked together, and one of them moves a customer with others below it: check each alone."""


Refusal = ParentCycle | ParentTooDeep | CustomerBeingErased


@dataclass(frozen=True)
class CheckedParents:
    """refused: by the index of the fact. unknown: parents that have to be registered before the puts, sorted."""

    refused: dict[int, Refusal] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Known:
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


async def check(connection: DriverConnection, organization_id: int, facts: Sequence[CustomerFact]) -> CheckedParents:
    """Which of the puts give a parent that they may not give, each as if those before it were made already.

    The customers are distinct. Facts without parents need no check and cost nothing. Raises ManyMoved.
    """
    if all(fact.parent_customer_id is None for fact in facts):
        return CheckedParents()
    ids = {fact.customer_id for fact in facts}
    ids.update(fact.parent_customer_id for fact in facts if fact.parent_customer_id is not None)
    known = await _read(connection, organization_id, sorted(ids))
    tree, refused, unknown = _Tree(known), dict[int, Refusal](), set[str]()
    for position, fact in enumerate(facts):
        before = known[fact.customer_id]
        if before.erased or is_newer(before.as_of_time, fact.as_of_time):
            continue  # the put is refused, or changes nothing
        if (parent := fact.parent_customer_id) is not None:
            levels_below = 0
            if before.is_parent and parent != before.parent and not known[parent].erased:
                if len(facts) > 1:
                    raise ManyMoved
                levels_below = await _levels_below(connection, organization_id, fact.customer_id)
            refusal = tree.refusal(fact.customer_id, parent, levels_below)
            if refusal is not None:
                refused[position] = refusal
                continue
            if not known[parent].exists:
                unknown.add(parent)
        tree.move(fact.customer_id, parent)
    put = {fact.customer_id for position, fact in enumerate(facts) if position not in refused}
    return CheckedParents(refused, sorted(unknown - put))


class _Tree:
    """Which customer stands above which, with the puts that were checked."""

    def __init__(self, known: dict[str, _Known]) -> None:
        self._known = known
        self._moved: dict[str, str | None] = {}

    def move(self, customer_id: str, parent: str | None) -> None:
        """Gives a customer a parent, or none."""
        self._moved[customer_id] = parent

    def refusal(self, customer_id: str, parent: str, levels_below: int) -> Refusal | None:
        """Why a customer must not get this parent. levels_below: of stored customers."""
        if self._known[parent].erased:
            return CustomerBeingErased(parent)
        above = list(self._from(parent))
        if customer_id in above:
            return ParentCycle(customer_id, parent)
        if parent == self._parent(customer_id):
            return None
        levels_below = max(levels_below, self._levels_of_moved(customer_id))
        return ParentTooDeep(customer_id, parent) if len(above) + 1 + levels_below > MOST_LEVELS else None

    def _parent(self, customer_id: str) -> str | None:
        return self._moved[customer_id] if customer_id in self._moved else self._known[customer_id].parent

    def _from(self, customer_id: str | None) -> Iterator[str]:
        """A customer, and those above it."""
        for _ in range(MOST_LEVELS + 1):
            if customer_id is None:
                return
            yield customer_id
            customer_id = self._parent(customer_id)

    def _levels_of_moved(self, customer_id: str) -> int:
        """How many levels the moved customers have below a customer."""
        chains = (list(self._from(moved)) for moved, parent in self._moved.items() if parent is not None)
        return max((chain.index(customer_id) for chain in chains if customer_id in chain), default=0)


async def _read(connection: DriverConnection, organization_id: int, ids: list[str]) -> dict[str, _Known]:
    parameters = {"organization_id": organization_id, "ids": ids, "most_levels": MOST_LEVELS + 2}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ABOVE, parameters)
        rows: list[dict[str, Any]] = await cursor.fetchall()
    return {row.pop("customer_id"): _Known(**row) for row in rows}


async def _levels_below(connection: DriverConnection, organization_id: int, customer_id: str) -> int:
    """How many levels of customers stand below a customer that has some; counts no more than MOST_LEVELS.

    Costs some searches of the index for each parent whose id is between those of the customers below it.
    """
    ids, levels = [customer_id], 1
    while levels < MOST_LEVELS:
        cursor = await connection.execute(_PARENTS_BELOW, {"organization_id": organization_id, "ids": ids})
        ids = [row[0] for row in await cursor.fetchall()]
        if not ids:
            break
        levels += 1
    return levels
