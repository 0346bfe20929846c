"""Watchers: an organization's share of them, and that every organization has its first ones."""

from typing import cast

import pytest

from server.alerts.watching.feeds import GUARANTEED_WATCHERS, Feeds, Watching
from server.calls.errors import ResourceExhausted
from store.postgres.database import Database


def watch_as_many(feeds: Feeds, organization_id: int) -> list[Watching]:
    """All the watchers that an organization may have."""
    found: list[Watching] = []
    refusal = None
    while refusal is None:
        try:
            found.append(feeds.watch(organization_id))
        except ResourceExhausted as error:
            refusal = error
    assert refusal.metadata == {"limit": str(len(found))}
    return found


async def test_ten_organizations_with_all_they_may_have_leave_an_eleventh_its_own() -> None:
    feeds = Feeds(cast(Database, None), max_watchers=100, organization_watchers=30)
    taken = [watch_as_many(feeds, organization_id) for organization_id in range(10)]
    assert len(taken[0]) == 30
    assert all(len(one) >= GUARANTEED_WATCHERS for one in taken)
    eleventh = watch_as_many(feeds, 11)
    assert len(eleventh) >= GUARANTEED_WATCHERS
    for one in [*eleventh, *(one for of_one in taken for one in of_one)]:
        one.end()
        one.end()
    assert feeds.watchers == 0
    assert len(watch_as_many(feeds, 1)) == 30
    await feeds.stop()


@pytest.mark.parametrize("limit", [1, 3, GUARANTEED_WATCHERS])
async def test_a_bound_below_what_is_guaranteed_holds(limit: int) -> None:
    feeds = Feeds(cast(Database, None), organization_watchers=limit)
    assert len(watch_as_many(feeds, 1)) == limit
    await feeds.stop()
