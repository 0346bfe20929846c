"""The busiest organizations: few series, whatever the number of organizations; totals that only rise."""

import pytest

from runtime.monitoring.busiest import HALF_LIFE, BusiestOrganizations


class Time:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def test_only_the_busiest_are_shown(time: Time) -> None:
    busiest = BusiestOrganizations(shown=2, tracked=100, now=time)
    for number in range(50):
        busiest.add(f"org-{number}", number + 1)
    assert busiest.totals() == {("org-49",): 50, ("org-48",): 49}


def test_older_load_counts_less(time: Time) -> None:
    busiest = BusiestOrganizations(shown=1, tracked=100, now=time)
    busiest.add("before", 100)
    time.now = 3 * HALF_LIFE
    busiest.add("now", 20)
    assert busiest.totals() == {("now",): 20}
    busiest.add("before", 10)
    assert busiest.totals() == {("before",): 110}


def test_an_organization_that_comes_back_shows_its_whole_total(time: Time) -> None:
    busiest = BusiestOrganizations(shown=1, tracked=100, now=time)
    busiest.add("first", 10)
    busiest.add("second", 11)
    assert busiest.totals() == {("second",): 11}
    busiest.add("first", 2)
    assert busiest.totals() == {("first",): 12}


def test_the_organizations_with_the_least_load_are_forgotten(time: Time) -> None:
    busiest = BusiestOrganizations(shown=1_000, tracked=10, now=time)
    for number in range(10_000):
        busiest.add(f"org-{number}", 1)
        busiest.add("busy", 1)
    assert len(busiest.totals()) == 10
    assert busiest.totals()["busy",] == 10_000


def test_the_order_holds_after_years(time: Time) -> None:
    busiest = BusiestOrganizations(shown=1, tracked=10, now=time)
    busiest.add("old", 1_000_000)
    for _ in range(400):
        time.now += 10 * HALF_LIFE
        busiest.add("steady", 1)
    assert busiest.totals() == {("steady",): 400}
    time.now += 100_000 * HALF_LIFE
    busiest.add("old", 1)
    assert busiest.totals() == {("old",): 1_000_001}
