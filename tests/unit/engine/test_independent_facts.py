"""A second fact of the same or another customer does not change the first: limits, times, exclusions."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from engine.facts.readings import Covered, FactReadings
from evaluator.balances import Unit
from evaluator.enforced_limits import LimitGroups
from evaluator.limits import LimitChange, Limits
from evaluator.periods import DEFAULT_CYCLE
from evaluator.routing import Router
from evaluator.routing_facts import CustomerFacts
from store.balances.wallet_timers import ReadTimes

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
USD, CALLS = Unit("USD"), Unit(metric_id="calls")
OF_SEATS: LimitGroups = (("seat", None),)


def limit(unit: Unit, amount: str | None, epoch: int, groups: LimitGroups = ()) -> LimitChange:
    return LimitChange(unit, groups, None if amount is None else Decimal(amount), epoch)


def test_a_limit_of_one_unit_or_group_does_not_replace_limits_of_others() -> None:
    facts = [
        limit(CALLS, "1", 1),
        limit(USD, "2", 2),
        limit(CALLS, "3", 3, OF_SEATS),
        limit(CALLS, "4", 4, (("seat", "ann"),)),
    ]
    for order in itertools.permutations(facts):
        found = Limits()
        for one in order:
            found = Limits([one], found)
        assert found.changed_epoch == 4
        assert [found.find(unit, ()) for unit in (CALLS, USD)] == [1, 2]
        assert [found.find(CALLS, (("seat", name),)) for name in ("ann", "bob")] == [4, 3]
        fewer = Limits([limit(USD, None, 5)], found)
        assert [fewer.find(CALLS, ()), fewer.find(CALLS, (("seat", "ann"),))] == [1, 4]
        assert fewer.find(USD, ()) is None
        assert found.find(USD, ()) == 2


def test_readings_keep_the_earliest_next_time_in_any_order() -> None:
    times = [None, NOW + DAY, NOW, NOW + 2 * DAY, None]
    for order in set(itertools.permutations(times)):
        found = FactReadings()
        found.expect("beta", NOW + 9 * DAY)
        for time in order:
            found.expect("acme", time)
        found.expect("idle", None)
        assert found.next_times == {"acme": NOW, "beta": NOW + 9 * DAY, "idle": None}


def test_readings_keep_the_times_of_each_customer() -> None:
    found = FactReadings()
    found.expect("acme", NOW + DAY)
    covered = [
        Covered(CustomerFacts(name, None, "USD", DEFAULT_CYCLE, 0, NOW), [], NOW + number * DAY)
        for number, name in enumerate(("acme", "beta"))
    ]
    assert found.by_wallet(covered) == {"acme": ReadTimes(NOW, NOW + DAY), "beta": ReadTimes(NOW + DAY, None)}


def test_a_second_exclusion_keeps_the_first() -> None:
    router = Router(1)
    for name in ("acme", "beta"):
        router.know_customer(CustomerFacts(name, None, "USD", DEFAULT_CYCLE, 0, NOW))
    excluded: list[tuple[str, str | None]] = [("a", None), ("b", "pro"), ("b", "free")]
    for one in excluded:
        router.exclude("acme", *one)
    assert router.customer("acme").excluded == set(excluded)
    assert not router.customer("beta").excluded
    assert router.customer("acme").excludes("a", "any")
    assert not router.customer("acme").excludes("b", None)
