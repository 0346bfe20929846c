"""Which parents puts may give, compared with a plain walk of random trees."""

import random
from datetime import UTC, datetime

import pytest

from evaluator.periods import DEFAULT_CYCLE
from evaluator.routing_facts import MOST_LEVELS
from store.accounts import customer_parents
from store.accounts.customer_parents import ManyMoved, ParentCycle, ParentTooDeep
from store.accounts.customers import CustomerFact
from store.identity import organizations
from store.postgres.database import Database, DriverConnection, driver
from store.rules import routing_facts

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
Tree = dict[str, str | None]


def fact(customer_id: str, parent: str | None) -> CustomerFact:
    return CustomerFact(customer_id, "", None, None, None, "USD", DEFAULT_CYCLE, {}, NOW, parent_customer_id=parent)


def above(tree: Tree, customer_id: str | None) -> list[str]:
    """The customer and all above it."""
    found = list[str]()
    while customer_id is not None:
        found.append(customer_id)
        customer_id = tree.get(customer_id)
    return found


def expected(tree: Tree, customer_id: str, parent: str | None) -> type[Exception] | None:
    """Why the customer must not get the parent."""
    if parent is None:
        return None
    if customer_id in above(tree, parent):
        return ParentCycle
    levels_below = max(
        above(tree, one).index(customer_id) for one in {*tree, customer_id} if customer_id in above(tree, one)
    )
    return ParentTooDeep if len(above(tree, parent)) + 1 + levels_below > MOST_LEVELS else None


async def store(connection: DriverConnection, organization_id: int, tree: Tree) -> None:
    """Makes the stored customers those of the tree."""
    names = sorted({*tree, *(parent for parent in tree.values() if parent is not None)})
    await routing_facts.register_customers(connection, organization_id, names, 0, NOW)
    await connection.cursor().executemany(
        "UPDATE customer SET parent_customer_id = %s WHERE organization_id = %s AND customer_id = %s",
        [(parent, organization_id, name) for name, parent in tree.items()],
    )


@pytest.mark.parametrize("seed", range(6))
async def test_puts_are_refused_as_a_plain_walk_says(database: Database, seed: int) -> None:
    draw = random.Random(seed)
    names = [f"{draw.choice('abc')}{number}" for number in range(30)]
    accepted = refused = 0
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", NOW)
        other = await organizations.get_or_create(connection, "theirs", NOW)
        raw = await driver(connection)
        await store(raw, other, dict(zip(names[1:], names, strict=False)))  # one long chain, which does not matter
        tree: Tree = {}
        for _ in range(80):
            puts = draw.sample(names, draw.choice((1, 2, 6)))
            near = draw.choice(([], puts * 20))  # puts of a group that depend on each other
            facts = [fact(name, draw.choice([None, *names, *near])) for name in puts]
            try:
                checked = [(facts, await customer_parents.check(raw, organization_id, facts))]
            except ManyMoved:
                checked = []
                for one in facts:
                    checked.append(([one], await customer_parents.check(raw, organization_id, [one])))
                    if not checked[-1][1].refused:
                        await store(raw, organization_id, {one.customer_id: one.parent_customer_id})
            for of_check, found in checked:
                for position, one in enumerate(of_check):
                    customer_id, parent = one.customer_id, one.parent_customer_id
                    why = expected(tree, customer_id, parent)
                    assert type(found.refused.get(position)) is (why or type(None)), (tree, customer_id, parent)
                    if why is None:
                        tree[customer_id] = parent
                        accepted += parent is not None
                    else:
                        refused += 1
            await store(raw, organization_id, tree)
    assert accepted > 40
    assert refused > 20


async def test_unknown_parents_are_named_once_and_without_those_that_are_put(database: Database) -> None:
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", NOW)
        raw = await driver(connection)
        await store(raw, organization_id, {"known": None})
        facts = [fact("a", "z"), fact("b", "z"), fact("c", "known"), fact("d", "y"), fact("e", "d"), fact("f", "f")]
        checked = await customer_parents.check(raw, organization_id, facts)
    assert checked.unknown == ["y", "z"]
    assert [(position, type(one)) for position, one in checked.refused.items()] == [(5, ParentCycle)]


@pytest.mark.parametrize(
    "moves", [[("m", "x"), ("x", "d")], [("x", "d"), ("m", "x")], [("m", "x"), ("n", "m"), ("x", "c")]]
)
async def test_puts_of_a_group_count_the_levels_of_those_before_them(
    database: Database, moves: list[tuple[str, str]]
) -> None:
    async with database.transaction() as connection:
        organization_id = await organizations.get_or_create(connection, "ours", NOW)
        raw = await driver(connection)
        await store(raw, organization_id, {"b": "a", "c": "b", "d": "c"})
        checked = await customer_parents.check(raw, organization_id, [fact(*move) for move in moves])
    assert [(position, type(one)) for position, one in checked.refused.items()] == [(len(moves) - 1, ParentTooDeep)]
