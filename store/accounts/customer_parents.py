"""Parents of customers: which parents puts may give, so that no customer stands above itself or too deep.

A transaction that gives parents must hold the organization's lock exclusively: then no other one gives any, and two
puts that together would make a circle see each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from evaluator.routing_facts import MOST_LEVELS
from store.accounts import parent_levels
from store.accounts.customers import CustomerFact
from store.accounts.parent_levels import Known
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


async def check(connection: DriverConnection, organization_id: int, facts: Sequence[CustomerFact]) -> CheckedParents:
    """Which of the puts give a parent that they may not give, each as if those before it were made already.

    The customers are distinct. Facts without parents need no check and cost nothing. Raises ManyMoved.
    """
    if all(fact.parent_customer_id is None for fact in facts):
        return CheckedParents()
    ids = {fact.customer_id for fact in facts}
    ids.update(fact.parent_customer_id for fact in facts if fact.parent_customer_id is not None)
    known = await parent_levels.read(connection, organization_id, sorted(ids))
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
                levels_below = await parent_levels.levels_below(connection, organization_id, fact.customer_id)
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

    def __init__(self, known: dict[str, Known]) -> None:
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
