"""Which customers enforced limits cover: a router that takes in changes answers like one that was made anew."""

import dataclasses
import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from evaluator.balances import Unit
from evaluator.enforced_limits import Enforcement
from evaluator.limit_windows import BILLING_PERIOD, LimitWindow, WindowKind
from evaluator.limits import NO_LIMITS, LimitChange, Limits
from evaluator.periods import DEFAULT_CYCLE
from evaluator.routing import Router
from evaluator.routing_facts import MOST_LEVELS, CustomerFacts, SubscriptionFacts

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
CALLS = Unit(metric_id="calls")
CUSTOMERS = ("organization", "team", "user", "key")  # each may be put below any of those before it
PLANS = (None, "gold")
HARD = Limits([LimitChange(CALLS, (), Decimal(5), 1, enforcement=Enforcement.HARD)])
LIMITS = (
    NO_LIMITS,
    Limits([LimitChange(CALLS, (), Decimal(5), 1)]),
    HARD,
    Limits([LimitChange(CALLS, (), Decimal(5), 1, LimitWindow(WindowKind.ROLLING, 5), Enforcement.SOFT)]),
    Limits([LimitChange(CALLS, (), None, 2, BILLING_PERIOD, Enforcement.HARD)], HARD),
)


def customer(customer_id: str, **facts: Any) -> CustomerFacts:
    return dataclasses.replace(CustomerFacts(customer_id, None, "USD", DEFAULT_CYCLE, 0, NOON), **facts)


def load(router: Router, stored: dict[str, CustomerFacts], customer_id: str) -> None:
    """Reads a customer and those above it where the router lacks them, as `Loading` does."""
    named: str | None = customer_id
    while named is not None:
        if named not in router.known:
            router.know_customer(stored[named])
        elif router.known[named].stale:
            router.replace_facts(stored[named])
            router.known[named].is_current()
        named = router.known[named].facts.parent_customer_id


class Coverage(RuleBasedStateMachine):
    """Random changes of customers, their limits and plans, with commits that name some of the customers."""

    def __init__(self) -> None:
        super().__init__()
        parents = dict(zip(CUSTOMERS[1:], CUSTOMERS, strict=False))
        self.stored = {name: customer(name, parent_customer_id=parents.get(name)) for name in CUSTOMERS}
        self.plan_limits = dict[str, Limits]()
        self.plans_of_subscriptions: dict[str, str | None] = dict.fromkeys(CUSTOMERS)
        self.router = Router(0)

    def _change(self, customer_id: str, **facts: Any) -> None:
        self.stored[customer_id] = dataclasses.replace(self.stored[customer_id], **facts)
        if (known := self.router.known.get(customer_id)) is not None:
            known.outdate()

    @rule(customer_id=st.sampled_from(CUSTOMERS), limits=st.sampled_from(LIMITS))
    def put_limits(self, customer_id: str, limits: Limits) -> None:
        """Changes the limits of a customer."""
        self._change(customer_id, limits=limits)

    @rule(customer_id=st.sampled_from(CUSTOMERS), plan_id=st.sampled_from(PLANS))
    def put_plan(self, customer_id: str, plan_id: str | None) -> None:
        """Changes the plan of a customer."""
        self._change(customer_id, plan_id=plan_id)

    @rule(customer_id=st.sampled_from(CUSTOMERS), above=st.integers(0, len(CUSTOMERS)))
    def put_parent(self, customer_id: str, above: int) -> None:
        """Puts a customer below one of those before it, or below none."""
        earlier = (None, *CUSTOMERS[: CUSTOMERS.index(customer_id)])
        self._change(customer_id, parent_customer_id=earlier[above % len(earlier)])

    @rule(customer_id=st.sampled_from(CUSTOMERS), being_erased=st.booleans())
    def erase(self, customer_id: str, being_erased: bool) -> None:
        """Begins to erase a customer, or meets a new one with its id."""
        self._change(customer_id, being_erased=being_erased)

    @rule(limits=st.sampled_from(LIMITS))
    def put_limits_of_a_plan(self, limits: Limits) -> None:
        """Changes the limits of the plan."""
        self.plan_limits["gold"] = limits
        self.router.change_plan_limits("gold", limits)

    @rule(customer_id=st.sampled_from(CUSTOMERS), plan_id=st.sampled_from(PLANS))
    def put_subscription(self, customer_id: str, plan_id: str | None) -> None:
        """Changes the plan of the customer's subscription."""
        self.plans_of_subscriptions[customer_id] = plan_id
        if (known := self.router.known.get(customer_id)) is not None:
            known.doubt_subscription("s")

    @rule(customer_id=st.sampled_from(CUSTOMERS), limits=st.sampled_from(LIMITS))
    def forget(self, customer_id: str, limits: Limits) -> None:
        """Forgets a customer, as a router does that knows too many; its limits change before it is read again."""
        self.router.known.pop(customer_id, None)
        self._change(customer_id, limits=limits)

    @invariant()
    def covers_like_a_new_router(self) -> None:
        """The customer below all others is named by every commit."""
        self._name("key", with_subscription=True)

    @rule(customer_id=st.sampled_from(CUSTOMERS), with_subscription=st.booleans())
    def name(self, customer_id: str, with_subscription: bool) -> None:
        """A commit names a customer, and perhaps its subscription."""
        self._name(customer_id, with_subscription)

    def _name(self, customer_id: str, with_subscription: bool) -> None:
        fresh = Router(0, plan_limits=dict(self.plan_limits))
        for router in (self.router, fresh):
            load(router, self.stored, customer_id)
            if with_subscription and "s" not in router.known[customer_id].subscriptions:
                plan_id = self.plans_of_subscriptions[customer_id]
                router.know_subscription(SubscriptionFacts(customer_id, "s", plan_id, None, None, 0, NOON))
        assert self.router.knows_above(self.router.known[customer_id])
        assert self.router.chain(customer_id) == fresh.chain(customer_id)
        if "s" not in self.router.known[customer_id].subscriptions or with_subscription:
            assert self.router.is_covered(customer_id) == fresh.is_covered(customer_id)


TestCoverage = Coverage.TestCase
TestCoverage.settings = settings(max_examples=100, stateful_step_count=40)


def test_a_customer_without_anything_enforced_is_not_covered() -> None:
    router = Router(0, plan_limits={"gold": LIMITS[1]})
    router.know_customer(customer("acme", plan_id="gold", limits=LIMITS[1]))
    assert not router.is_covered("acme")


@pytest.mark.parametrize("limits", [HARD, LIMITS[3]])
def test_limits_of_each_customer_above_cover_a_customer(limits: Limits) -> None:
    router = Router(0)
    router.know_customer(customer("top", limits=limits))
    names = ["top", *(f"c{number}" for number in range(1, MOST_LEVELS))]
    for parent, name in itertools.pairwise(names):
        router.know_customer(customer(name, parent_customer_id=parent))
    assert [one.customer_id for one in router.chain(names[-1])] == names[::-1]
    assert all(router.is_covered(name) for name in names)


def test_a_chain_ends_below_a_customer_that_is_being_erased() -> None:
    router = Router(0)
    router.know_customer(customer("top", limits=HARD))
    router.know_customer(customer("middle", parent_customer_id="top", being_erased=True))
    router.know_customer(customer("low", parent_customer_id="middle"))
    assert [one.customer_id for one in router.chain("low")] == ["low"]
    assert not router.is_covered("low")


def test_the_plan_of_a_subscription_covers_its_customer() -> None:
    router = Router(0, plan_limits={"gold": HARD})
    router.know_customer(customer("acme"))
    assert not router.is_covered("acme")
    router.know_subscription(SubscriptionFacts("acme", "s", "gold", None, None, 0, NOON))
    assert router.is_covered("acme")


def test_a_router_that_has_to_read_a_customer_above_does_not_know_all_above() -> None:
    router = Router(0)
    low = router.know_customer(customer("low", parent_customer_id="top"))
    assert not router.knows_above(low)
    top = router.know_customer(customer("top"))
    assert router.knows_above(low)
    top.outdate()
    assert not router.knows_above(low)
